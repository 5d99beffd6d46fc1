import pytest

from raydual.data.plan import Unit, num_rows, read_index, rows_at, shuffled, val_plan
from raydual.errors import DataError

UNITS = [Unit("a", 0, tuple(range(64))), Unit("a", 1, (1, 5)), Unit("b", 0, tuple(range(37)))]


def rows(plan: list[Unit]) -> list[tuple[str, int, int]]:
    return [(u.shard, u.row_group, r) for u in plan for r in u.rows]


ALL = set(rows(UNITS))


def test_epochs_hold_every_row_and_repeat_by_seed_alone() -> None:
    def plan(seed: int, epoch: int) -> list:
        return rows(shuffled(UNITS, seed=seed, epoch=epoch))

    assert sorted(plan(0, 1)) == sorted(ALL)
    assert plan(0, 1) == plan(0, 1)
    assert plan(0, 1) != plan(0, 2)
    assert plan(0, 1) != plan(1, 1)


@pytest.mark.parametrize("world", [1, 2, 3, 50])
def test_validation_shares_hold_every_row_once(world: int) -> None:
    together = [
        row
        for r in range(world)
        for row in rows(val_plan(UNITS, rank=r, world_size=world, max_rows=999))
    ]
    assert together == rows(UNITS)


@pytest.mark.parametrize("world", [1, 3])
def test_limited_validation_takes_the_same_rows_for_any_world(world: int) -> None:
    shares = [val_plan(UNITS, rank=r, world_size=world, max_rows=65) for r in range(world)]
    assert [row for share in shares for row in rows(share)] == rows(UNITS)[:65]


def test_rows_at_are_those_at_the_positions_in_the_plans_order() -> None:
    assert rows(rows_at(UNITS, range(65))) == rows(UNITS)[:65]
    some = [0, 63, 64, 66, 102]
    assert rows(rows_at(UNITS, some)) == [rows(UNITS)[i] for i in some]
    assert rows_at(UNITS, []) == []


def test_index_filters_and_says_what_there_is(dataset: str) -> None:
    everything = num_rows(read_index(dataset, "train"))
    assert everything == 48
    some = num_rows(read_index(dataset, "train", min_objects=1, max_objects=3))
    assert 0 < some < everything
    circles = num_rows(read_index(dataset, "train", category="circle"))
    assert 0 < circles < everything
    with pytest.raises(DataError, match=r"'pear'.*circle"):
        read_index(dataset, "train", category="pear")
    with pytest.raises(DataError, match="min_objects=6"):
        read_index(dataset, "train", min_objects=6)
    with pytest.raises(DataError, match="nowhere"):
        read_index("nowhere", "train")
