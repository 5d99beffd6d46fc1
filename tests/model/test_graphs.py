"""What CUDA graphs are captured of, and what happens where they cannot be; no GPU is needed."""

import numpy as np
import pytest
import torch

from raydual.config_tree import LoraSection
from raydual.model import graphs
from raydual.model.graphs import LENGTHS, MOST, GraphedDecoder, visible
from raydual.model.prompt import Prompter
from raydual.model.trunk import Trunk
from tests.model.families import FAMILIES, write_checkpoint

LORA = LoraSection(r=4, alpha=8, dropout=0.0)


class Case:
    """A Qwen-VL under LoRA, and prompts of three lengths."""

    def __init__(self, family, folder) -> None:
        source, side = str(write_checkpoint(family, folder)), family.image_size
        self.trunk = Trunk.from_pretrained(source, lora=LORA, seed=0, image_size=side).train()
        images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
        prompter = Prompter.from_pretrained(source, side)
        self.batch = prompter.encode(images, ["circles", "unheard-of things", "x"], [0, 12, 3])

    def passes(self, batch) -> list[torch.Tensor]:
        """Outputs and gradients."""
        self.trunk.zero_grad()
        hidden = self.trunk(batch)
        (hidden.cells.square().sum() + hidden.readouts.sum() + hidden.category.sum()).backward()
        return [*hidden, *(p.grad for p in self.trunk.parameters() if p.requires_grad)]


@pytest.fixture(params=FAMILIES[:2], ids=lambda f: f.name)
def case(request, tmp_path) -> Case:
    return Case(request.param, tmp_path)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Random state of the host, and captures that fail; returns why, once for each."""
    seen: list[str] = []

    def refuse(*_):
        seen.append("capture")
        torch.rand(3)
        raise RuntimeError("no such device\nand more")

    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    monkeypatch.setattr(graphs, "_replayed", refuse)
    return seen


def test_each_position_sees_itself_and_the_words_before_it():
    assert visible(torch.tensor([[0, 1, 1]])).int().tolist() == [
        [[[1, 0, 0], [0, 1, 0], [0, 1, 1]]]
    ]


@pytest.mark.filterwarnings("ignore:training without CUDA graphs")
def test_what_is_captured_computes_what_the_model_does(case, without_gpu):
    expected = case.passes(case.batch)
    case.trunk.prepare_for_training(autocast=False, graphs=True)
    assert not without_gpu
    looked = case.trunk.look([case.batch, case.batch])
    for batch in looked:
        torch.testing.assert_close(case.passes(batch), expected, atol=1e-4, rtol=1e-4)
    assert without_gpu == ["capture"] * (2 if case.trunk._tower else 1)
    assert [shape[1] % LENGTHS for shape in case.trunk._decoder._graphs] == [0]


def test_where_nothing_can_be_captured_training_goes_on_and_says_so(case, without_gpu):
    case.trunk.prepare_for_training(autocast=False, graphs=True)
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match=r"^training without CUDA graphs, slower: no such device$"):
        case.passes(*case.trunk.look([case.batch]))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(layer._compiled_call_impl is None for layer in case.trunk._decoder._decoder.layers)


@pytest.mark.filterwarnings("ignore:training without CUDA graphs")
def test_other_shapes_are_captured_up_to_a_few(case, without_gpu):
    decoder = GraphedDecoder(case.trunk.model.get_decoder())
    width = case.trunk.hidden_size
    for length in (5, 40, 70, 100, 101):
        mask = torch.ones(2, length, dtype=torch.int64)
        positions = torch.arange(length).expand(3, 2, length)
        out = decoder(torch.randn(2, length, width), mask, positions)
        assert out.shape == (2, length, width)
    assert [shape[1] for shape in decoder._graphs] == [32, 64, 96][:MOST]


def test_nothing_is_captured_in_evaluation_or_of_whole_images(case, without_gpu):
    case.trunk.prepare_for_training(autocast=False, graphs=True)
    case.passes(case.batch)
    case.trunk.eval()
    with torch.no_grad():
        case.trunk(case.batch)
    assert not without_gpu
