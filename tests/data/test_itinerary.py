from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from raydual.data.itinerary import Leg, extent, unread


def trained(total: int, legs: Sequence[Leg], limit: int | None = None) -> list[list[list[int]]]:
    """What each rank of each leg reads: as much of what is left as the leg has done."""
    return [
        [
            unread(total, [*legs[:n], leg._replace(done=0)], limit, rank=rank, seed=(3, 1))[
                : leg.done * leg.batch
            ]
            for rank in range(leg.ranks)
        ]
        for n, leg in enumerate(legs)
    ]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_get_equal_shares_and_leave_out_fewer_rows_than_ranks(ranks: int) -> None:
    shares = [unread(103, [Leg(ranks, 4)], None, rank=r, seed=(3, 1)) for r in range(ranks)]
    assert {len(share) for share in shares} == {103 // ranks}
    seen = Counter(row for share in shares for row in share)
    assert set(seen.values()) == {1}
    assert set(seen) <= set(range(103))
    assert extent(103, [Leg(ranks, 4)], None) == (len(seen), -(-(103 // ranks) // 4))


@pytest.mark.parametrize(
    ("legs", "rows"),
    [
        ([Leg(2, 4, 5), Leg(1, 4, 16)], 104),
        ([Leg(1, 4, 3), Leg(4, 2, 2), Leg(2, 4, 10)], 104),
        ([Leg(4, 4, 3), Leg(3, 4, 2), Leg(1, 4, 8)], 104),
        ([Leg(2, 3, 0), Leg(2, 4, 13)], 104),
    ],
)
def test_an_epoch_in_legs_reads_every_row_once(legs: list[Leg], rows: int) -> None:
    seen = Counter(row for leg in trained(104, legs) for share in leg for row in share)
    assert set(seen.values()) == {1}
    assert len(seen) == rows
    assert extent(104, legs, None) == (104, sum(leg.done for leg in legs))


def test_rows_that_cannot_be_dealt_evenly_are_left_to_the_next_leg() -> None:
    legs = [Leg(1, 3, 1), Leg(3, 4, 1), Leg(2, 4, 1)]  # 20 rows: 3, then 12 of 17, then 4 of 5
    seen = [row for leg in trained(20, legs) for share in leg for row in share]
    assert len(set(seen)) == len(seen) == 3 + 12 + 4
    assert extent(20, legs, None) == (20, 3)


def test_the_limit_of_iterations_is_one_of_rows_by_the_first_leg() -> None:
    assert extent(1000, [Leg(2, 4)], 10) == (80, 10)
    legs = [Leg(2, 4, 5), Leg(1, 4, 10)]
    assert extent(1000, legs, 10) == (80, 15)
    seen = [row for leg in trained(1000, legs, 10) for share in leg for row in share]
    assert len(set(seen)) == len(seen) == 80


def test_the_rest_of_a_share_is_read_in_the_order_it_would_have_had() -> None:
    whole = unread(50, [Leg(2, 4)], None, rank=1, seed=(0, 7))
    assert unread(50, [Leg(2, 4, 3)], None, rank=1, seed=(0, 7)) == whole[12:]
    assert unread(50, [Leg(2, 4)], None, rank=1, seed=(0, 8)) != whole
