"""What CUDA graphs are captured of, and what happens where they cannot be; no GPU is needed."""

import contextlib
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace

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
    """Random state of the host, and captures that fail; returns what is done, in order."""
    seen: list[str] = []

    def refuse(*_):
        seen.append("capture")
        torch.rand(3)
        raise RuntimeError("no such device\nand more")

    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "its stream")
    monkeypatch.setattr(torch.cuda, "set_stream", seen.append)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    monkeypatch.setattr(graphs, "_Replay", refuse)
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
    assert without_gpu == ["capture", "its stream"] * (2 if case.trunk._tower else 1)
    assert [shape[1] % LENGTHS for shape in case.trunk._decoder._graphs] == [0]


def test_where_nothing_can_be_captured_training_goes_on_and_says_so(case, without_gpu):
    case.trunk.prepare_for_training(autocast=False, graphs=True)
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match=r"^training without CUDA graphs, slower: no such device$"):
        case.passes(*case.trunk.look([case.batch]))
    assert torch.equal(torch.get_rng_state(), state)
    layers = case.trunk.model.get_decoder().layers
    assert all(layer._compiled_call_impl is None for layer in layers)


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


def test_a_replay_keeps_what_its_graph_reads_and_gives_copies(monkeypatch: pytest.MonkeyPatch):
    """A graph knows addresses alone: what lies there must not be given back."""
    captured: list[Callable[[], None]] = []

    class Graph:
        def replay(self) -> None:
            captured[-1]()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)

    def made() -> tuple[Callable[[torch.Tensor], torch.Tensor], weakref.ref]:
        positions = torch.tensor([10.0, 20.0])
        kept = weakref.ref(positions)

        def run(pixels: torch.Tensor) -> torch.Tensor:
            out = pixels + positions
            captured.append(lambda: torch.add(pixels, kept(), out=out))
            return out

        return graphs._Replay(run, torch.zeros(2)), kept

    replay, kept = made()
    gc.collect()
    assert kept() is not None
    first, second = replay(torch.tensor([1.0, 2.0])), replay(torch.tensor([3.0, 4.0]))
    assert first.tolist() == [11.0, 22.0]
    assert second.tolist() == [13.0, 24.0]
