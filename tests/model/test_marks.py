"""Marks without paint: where they lie on the grid, by hand, and what they do to a trunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raydual.config_tree import LoraSection
from raydual.errors import ConfigError
from raydual.model.inputs import FEATURES, mark_inputs
from raydual.model.marks import spread
from raydual.model.prompt import Prompter
from raydual.model.trunk import Trunk
from tests.model.families import FAMILIES, Family, write_checkpoint

LORA = LoraSection(r=4, alpha=8, dropout=0.0)
OWN = (Family("tiny", 48, (6, 6)), Family("photo", 64, (16, 16)))


def on_grid(*points: tuple[float, float]) -> torch.Tensor:
    """Return what the cells of a grid of 2 rows and 4 columns have of the points."""
    marks = mark_inputs([np.array(points).reshape(-1, 2)])
    return spread(*marks.values(), (2, 4))[0]


def test_a_mark_in_the_middle_of_a_cell_is_all_its_own() -> None:
    shares = on_grid((-0.25, 0.5))  # row 1, column 1
    assert shares[5].tolist() == [1, 1]
    assert shares.sum().item() == 2


def test_a_mark_between_cells_is_shared_by_the_four_nearest() -> None:
    shares, counts = on_grid((0.0 + 1 / 16, 0.0)).T  # an eighth of a cell into row 1, column 2
    assert shares[[1, 2, 5, 6]].tolist() == pytest.approx([0.375 / 2, 0.625 / 2] * 2, abs=0.13)
    assert shares.sum().item() == pytest.approx(1)
    assert counts.tolist() == [0, 0, 0, 0, 0, 0, 1, 0]


def test_what_lies_outside_the_grid_is_dropped_and_padding_counts_nothing() -> None:
    shares, counts = on_grid((-1.0, -1.0)).T  # a corner: three of four cells are outside
    assert shares.tolist() == [0.25, 0, 0, 0, 0, 0, 0, 0]
    assert counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert on_grid().abs().sum() == 0
    both = mark_inputs([np.zeros((0, 2)), np.array([[0.9, 0.9], [-0.9, -0.9]])])
    assert spread(*both.values(), (2, 4))[0].abs().sum() == 0


def test_several_marks_in_a_cell_add_up() -> None:
    assert on_grid((-0.25, 0.5), (-0.25, 0.5))[5].tolist() == [2, 2]


class Case:
    """A family, with a batch of two images and two choices of marks on them."""

    def __init__(self, family: Family, source: str) -> None:
        self.family, self.source = family, source
        side = family.image_size
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
        prompter = Prompter.from_pretrained(source, side)
        self.bare = prompter.encode(images, ["circle", "日本"], [2, 1])
        self.marks = [
            mark_inputs([rng.uniform(-1, 1, (2, 2)), rng.uniform(-1, 1, (1, 2))]) for _ in "ab"
        ]

    def trunk(self, **options: object) -> Trunk:
        options = {"lora": None, "seed": 0, "embed_marks": True} | options
        trunk = Trunk.from_pretrained(  # type: ignore[arg-type]
            self.source, image_size=self.family.image_size, **options
        )
        return trunk.eval()


@pytest.fixture(scope="module", params=(*FAMILIES, *OWN), ids=lambda f: f.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family: Family = request.param
    if family in OWN:
        return Case(family, family.name)
    return Case(family, str(write_checkpoint(family, tmp_path_factory.mktemp(family.name))))


@torch.no_grad()
def test_marks_may_move_over_features_that_are_looked_at_once(case: Case) -> None:
    """One look at the pixels, two passes: the same as looking anew at each."""
    trunk = case.trunk(freeze_tower=True)
    (seen,) = trunk.look([case.bare])
    assert FEATURES in seen
    for marks in case.marks:
        again, fresh = trunk(seen | marks), trunk(case.bare | marks)
        for one, other in zip(again, fresh, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    first, second = (trunk(seen | marks).cells for marks in case.marks)
    assert (first - second).abs().max() > 1e-3


def test_marks_go_into_a_trunk_of_bfloat16(case: Case) -> None:
    """As FSDP gathers it: without autocast, its vectors in bfloat16 too."""
    trunk = case.trunk().to(torch.bfloat16)
    first, second = (trunk(case.bare | marks).cells for marks in case.marks)
    assert first.isfinite().all()
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_the_vectors_are_trained_saved_and_loaded(
    case: Case, lora: LoraSection | None, tmp_path: Path
) -> None:
    if lora and case.family.name == "photo":  # whose pyramid has to be trained
        with pytest.raises(ConfigError, match="untrained"):
            case.trunk(lora=lora)
        return
    trunk = case.trunk(lora=lora)
    trunk(case.bare | case.marks[0]).cells.square().sum().backward()
    assert trunk.mark is not None
    assert trunk.mark.grad is not None
    assert trunk.mark.grad.abs().min() > 0
    with torch.no_grad():
        trunk.mark += 1
    trunk.save_pretrained(tmp_path)
    again = Trunk.load(tmp_path, image_size=case.family.image_size).eval()
    assert torch.equal(again.mark, trunk.mark)
    inputs = case.bare | case.marks[1]
    assert all(torch.equal(a, b) for a, b in zip(trunk(inputs), again(inputs), strict=True))


def test_a_frozen_tower_is_not_trained_and_the_rest_is(case: Case) -> None:
    trunk = case.trunk(freeze_tower=True).train()
    tower = trunk.tower_parameters()
    assert tower
    trunk(case.bare | case.marks[0]).cells.square().sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in tower)
    mine = {id(p) for p in tower}
    others = [p for p in trunk.parameters() if id(p) not in mine]
    assert all(p.requires_grad for p in others)
    assert any(p.grad is not None for p in others)


def test_without_embedded_marks_nothing_is_added(case: Case) -> None:
    assert case.trunk(embed_marks=False).mark is None


def test_painted_marks_are_no_marks_of_a_prediction(small: Callable) -> None:
    from PIL import Image

    from raydual.model.counter import DualTaskCounter

    image = Image.new("RGB", (80, 60))
    embedded = DualTaskCounter.from_config(small("data.mark.style=embedding")).eval()
    first = embedded.predict(image, 1, "circle", marks=[(10, 10)])
    assert first != embedded.predict(image, 1, "circle", marks=[(70, 50)])
    with pytest.raises(ValueError, match="0 marks are given for num_marked=1, expected 1"):
        embedded.predict(image, 1, "circle")
    with pytest.raises(ValueError, match=r"expected 0: .*style=numbers"):
        DualTaskCounter.from_config(small()).predict_done(image, 1, "circle", marks=[(1, 1)])
