from __future__ import annotations

from raydual.training.failures import hang, why

TIMED_OUT = RuntimeError("[gloo] Timed out waiting 20000ms for recv operation to complete")


def test_the_rank_that_others_wait_for_is_named_with_its_place() -> None:
    stages = {
        0: ("epoch 1, iteration 7, backward pass of coord", 20.4),
        1: ("epoch 1, iteration 7, forward pass of coord", 20.6),
        2: ("epoch 1, iteration 7, backward pass of coord", 20.5),
    }
    said = hang({0: TIMED_OUT, 2: TIMED_OUT}, stages, 20)
    assert said is not None
    assert said.startswith(
        "rank 1 hangs: it has been at epoch 1, iteration 7, forward pass of coord"
    )
    assert why({0: TIMED_OUT}, stages, 20) == said, "ranks that gave up have not all been heard"


def test_nobody_hangs_where_all_have_moved_lately() -> None:
    stages = {0: ("epoch 1, iteration 7, waiting for data", 19.0)}
    assert hang({0: RuntimeError("boom")}, stages, 20) is None
    assert why({0: RuntimeError("Traceback\n  boom\n")}, stages, 20) == "rank 0: boom"


def test_a_rank_that_lost_another_is_not_the_one_that_failed() -> None:
    lost = RuntimeError("Connection closed by peer [127.0.0.1]:14742")
    died = RuntimeError("The actor died unexpectedly")
    assert why({0: lost, 1: died}, {}, 20) == "rank 1: The actor died unexpectedly"
    assert why({0: lost}, {}, 20).startswith("rank 0: Connection closed")
