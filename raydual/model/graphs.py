"""Towers and decoders whose kernels are fused and launched together: torch.compile, CUDA graphs.

A pass of a small batch through dozens of layers is thousands of short kernels, and the host takes
longer to launch them than the GPU to run them. A graph is launched at once; its shapes and its
memory stay as they were when it was captured, so layers can be compiled for these shapes too.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.vision_utils import get_vision_position_ids

LENGTHS = 32
"""Prompts are padded to a multiple of so many tokens, so that one graph does for most batches."""

MOST = 3
"""How many graphs are captured, each of which keeps memory; batches of other shapes do without."""

WARM_UP = 3
"""Passes before a capture: what is compiled or allocated lazily must not be inside."""

DECODERS = ("qwen2_vl", "qwen2_5_vl")
TOWERS = ("qwen2_vl",)
"""Families whose parts are known to compute the same in a graph."""

Graphs = dict[tuple[int, ...], Callable[..., Tensor]]


class GraphedDecoder:
    """The decoder of a Qwen-VL in training: the same arithmetic as without graphs."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = _Decoder(decoder)
        self._graphs: Graphs = {}

    def __call__(self, embedded: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Return the last hidden state, (B, L, D).

        embedded: (B, L, D), which takes a gradient. mask: (B, L), 0 for padding on the left.
        positions: (3, B, L).
        """
        padding = -embedded.shape[1] % LENGTHS
        arguments = (
            functional.pad(embedded, (0, 0, padding, 0)),
            visible(functional.pad(mask, (padding, 0))),
            functional.pad(positions, (padding, 0)),
        )
        shape = tuple(arguments[0].shape)
        if shape not in self._graphs and len(self._graphs) < MOST:
            self._graphs[shape] = _captured(
                lambda: self._capture(*arguments), self._decoder, self._decoder.decoder.layers
            )
        return self._graphs.get(shape, self._decoder)(*arguments)[:, padding:]

    def _capture(self, *arguments: Tensor) -> Callable[..., Tensor]:
        samples = tuple(a.detach().clone().requires_grad_(a.requires_grad) for a in arguments)
        decoder = _Decoder(self._decoder.decoder)  # what it is given is changed
        graph: Any = torch.cuda.make_graphed_callables(decoder, samples)
        return graph


class GraphedTower:
    """The vision tower of Qwen2-VL, without gradients."""

    def __init__(self, tower: Any, side: int) -> None:
        """Take a tower, and how many patches long a side of each image is."""
        self._tower, self._side = tower, side
        self._graphs: Graphs = {}

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return features, (images * cells, D).

        pixels: (images * side * side, values of a patch), of whole images.
        """
        shape = tuple(pixels.shape)
        if shape not in self._graphs and len(self._graphs) < MOST:
            blocks = self._tower.blocks
            run = self._run(pixels)
            self._graphs[shape] = _captured(lambda: _Replay(run, pixels), run, blocks)
        return (self._graphs.get(shape) or self._run(pixels))(pixels)

    def _run(self, pixels: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the tower for images as many as these, with nothing left that waits for them."""
        patches = self._side**2
        images = len(pixels) // patches
        grid = torch.tensor([[1, self._side, self._side]]).repeat(images, 1)
        positions = get_vision_position_ids(grid, self._tower.spatial_merge_size)
        positions, starts = positions.to(pixels.device), torch.arange(images + 1) * patches

        def run(pixels: Tensor) -> Tensor:
            out = self._tower(
                pixels, grid_thw=grid, position_ids=positions, cu_seqlens=starts, return_dict=True
            )
            features: Tensor = out.pooler_output
            return features

        return run


def visible(mask: Tensor) -> Tensor:
    """Say which positions each one attends to, bool (B, 1, L, L): itself, and earlier words.

    mask: (B, L), 0 for padding.
    """
    length = mask.shape[1]
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    earlier = torch.ones_like(itself).tril()
    return (mask[:, None, None, :].bool() & earlier) | itself


class _Decoder(nn.Module):
    """A decoder with tensors alone as arguments."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, embedded: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        hidden: Tensor = self.decoder(
            inputs_embeds=embedded,
            attention_mask={"full_attention": mask},
            position_ids=positions,
            use_cache=False,
            return_dict=True,
        ).last_hidden_state
        return hidden


class _Replay:
    """A pass without gradients as a graph; what the graph reads and writes is kept alive here."""

    def __init__(self, run: Callable[[Tensor], Tensor], pixels: Tensor) -> None:
        self._run, self._pixels = run, pixels.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run(self._pixels)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = run(self._pixels)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the output for an input of the same shape."""
        self._pixels.copy_(pixels)
        self._graph.replay()
        return self._out.clone()


def _captured(
    capture: Callable[[], Callable[..., Tensor]],
    plain: Callable[..., Tensor],
    layers: Iterable[nn.Module],
) -> Callable[..., Tensor]:
    """Capture with layers compiled; where that cannot be done here, go on without.

    Random numbers, gradients, the stream, and the layers as others call them are left as they are.
    """
    state, stream = torch.cuda.get_rng_state(), torch.cuda.current_stream()
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    try:
        # weights that autocast has cast already are not those that a graph would cast
        with (
            _compiled(layers),
            torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False),
        ):
            return capture()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"training without CUDA graphs, slower: {reason}", stacklevel=2)
        return plain
    finally:
        torch.cuda.set_stream(stream)  # a capture that fails in its middle leaves its own
        torch.cuda.set_rng_state(state)


@contextlib.contextmanager
def _compiled(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Call layers compiled for the shapes that they see, inside the block."""
    for layer in layers:
        layer.compile(dynamic=False)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
