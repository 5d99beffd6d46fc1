"""When ranks agree, by hand: the clock and the other ranks are stand-ins."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist

from raydual.training import hooks
from raydual.training.hooks import CHECK_EVERY, Agreement, Request


@pytest.mark.parametrize(("seconds", "apart"), [(0.01, CHECK_EVERY), (0.125, 8), (6.0, 1)])
def test_ranks_agree_about_once_a_second_and_after_each_long_iteration(
    monkeypatch: pytest.MonkeyPatch, seconds: float, apart: int
) -> None:
    now = 0.0
    asked: list[int] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, op: None)
    monkeypatch.setattr(hooks.time, "monotonic", lambda: now)

    def requested() -> Request:
        asked.append(done)
        return Request.NOTHING

    agreement = Agreement(requested, torch.device("cpu"))
    for done in range(51):
        agreement.reached(done, last=done == 50)
        now += seconds
    assert asked[:2] == [0, 1]
    assert asked[-1] == 50
    assert {b - a for a, b in itertools.pairwise(asked[1:-1])} == {apart}
