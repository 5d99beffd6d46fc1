from __future__ import annotations

from raydual.training.failures import hang, stuck, why
from raydual.training.gate import Desk

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


def test_a_crash_among_ranks_that_validate_for_long_is_no_hang() -> None:
    stages = dict.fromkeys((0, 1), ("validation after epoch 1", 25.0))
    killed = RuntimeError("The actor died unexpectedly")
    assert why({1: killed}, stages, 20) == "rank 1: The actor died unexpectedly"


def test_the_line_that_names_the_error_is_the_reason() -> None:
    cuda = RuntimeError("Traceback\n  RuntimeError: CUDA error: out of memory\nCompile with ...")
    assert why({0: cuda}, {}, 20) == "rank 0: RuntimeError: CUDA error: out of memory"
    assert why({0: KeyError()}, {}, 20) == "rank 0: KeyError"


def test_a_rank_that_has_not_moved_is_named_while_the_training_goes_on() -> None:
    stages = {0: ("saving after epoch 1", 1900.0), 1: ("waiting for data", 3.0)}
    assert stuck(stages, 1800) == ["rank 0 has been at saving after epoch 1 for 1900 s"]


def test_ranks_of_a_larger_attempt_are_forgotten() -> None:
    desk = Desk(restarts=0)
    for rank in range(3):
        desk.enters(rank, 3, "validation")
    desk.enters(0, 1, "waiting for data")
    assert {rank: stage for rank, (stage, _) in desk.stages().items()} == {0: "waiting for data"}


def test_a_restart_can_be_taken_once_whoever_takes_it() -> None:
    desk = Desk(restarts=2)
    desk.enters(0, 1, "validation")
    assert [desk.start_again(counts) for counts in (True, False, True, True, False)] == [
        1, 1, 0, None, 0,
    ]  # fmt: skip
    assert desk.restarts_left() == 0
    assert desk.stages() == {}, "of ranks that are gone"


def test_a_rank_that_lost_another_is_not_the_one_that_failed() -> None:
    lost = RuntimeError("Connection closed by peer [127.0.0.1]:14742")
    died = RuntimeError("The actor died unexpectedly")
    assert why({0: lost, 1: died}, {}, 20) == "rank 1: The actor died unexpectedly"
    assert why({0: lost}, {}, 20).startswith("rank 0: Connection closed")
