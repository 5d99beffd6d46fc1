"""What each change for speed gives on a CPU: the loop as it is, and with one change taken back.

python benchmarks/cpu_levers.py [ROUNDS]    # 3 by default: half an hour; rows in turn, medians

The tiny preset, and a small Qwen2-VL with random weights and LoRA whose tower stays frozen.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import random_qwen
import torch

from raydual.bench.command import dataset, median
from raydual.bench.rows import base_config
from raydual.bench.stopwatch import Stopwatch, figures
from raydual.bench.worker import threads, train
from raydual.config import load
from raydual.config_tree import Config
from raydual.model import trunk
from raydual.training.parallel import ParallelCounter

ITERATIONS = 40
TEXT = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
}
VISION = {"depth": 6, "embed_dim": 256, "hidden_size": 256, "num_heads": 4, "mlp_ratio": 4}


class Lazy:
    """In place of `Prefetched`: makes an item when it is asked for."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def close(self) -> None:
        """There is no thread to stop."""


def uncached(maxsize: int) -> Callable[[Any], Any]:
    """In place of `lru_cache`: computes again what was asked for before."""
    return lambda function: function


@contextlib.contextmanager
def one_tensor_at_a_time() -> Iterator[None]:
    """AdamW and clipping without fused kernels and without lists of tensors."""
    adamw, total, clip = torch.optim.AdamW, torch.nn.utils.get_total_norm, "clip_grads_with_norm_"
    scale = getattr(torch.nn.utils, clip)
    with (
        mock.patch("torch.optim.AdamW", lambda groups, fused: adamw(groups, foreach=False)),
        mock.patch("torch.nn.utils.get_total_norm", functools.partial(total, foreach=False)),
        mock.patch(f"torch.nn.utils.{clip}", functools.partial(scale, foreach=False)),
    ):
        yield


@contextlib.contextmanager
def eager_attention() -> Iterator[None]:
    """Attention written out, in the language model and in the tower, image by image."""
    made = trunk.initial_model

    def eager(*args: Any) -> Any:
        model = made(*args)
        model.set_attn_implementation("eager")
        return model

    with mock.patch.object(trunk, "initial_model", eager):
        yield


@contextlib.contextmanager
def vocabulary_logits() -> Iterator[None]:
    """Hidden states of every layer, and logits of the last one over the vocabulary."""
    plain, functional = trunk.Trunk._last_hidden, torch.nn.functional

    def last_hidden(self: trunk.Trunk, inputs: dict[str, Any]) -> torch.Tensor:
        hidden = plain(self, inputs | {"output_hidden_states": True})
        self.logits = functional.linear(hidden, self.model.get_input_embeddings().weight)
        return hidden

    with mock.patch.object(trunk.Trunk, "_last_hidden", last_hidden):
        yield


LEVERS: dict[str, dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]] = {
    "tiny": {
        "as it is": contextlib.nullcontext,
        "AdamW and clipping one tensor at a time": one_tensor_at_a_time,
        "batches made when they are asked for": lambda: mock.patch(
            "raydual.data.batches.Prefetched", Lazy
        ),
        "prompts by the tokenizer every time": lambda: mock.patch(
            "raydual.model.prompt.lru_cache", uncached
        ),
        "validation images decoded every time": lambda: mock.patch(
            "raydual.data.batches.KEEP_BYTES", 0
        ),
        "all hidden states, and logits of 512 tokens": vocabulary_logits,
    },
    "qwen": {
        "as it is": contextlib.nullcontext,
        "frozen tower once a task": lambda: mock.patch.object(
            ParallelCounter, "tower_is_frozen", False
        ),
        "tower image by image, patches by a 3D convolution": lambda: mock.patch.object(
            trunk, "take_batches"
        ),
        "attention without SDPA, and image by image": eager_attention,
        "all hidden states, and logits of 8192 tokens": vocabulary_logits,
    },
}


def settings(name: str, scratch: Path) -> Config:
    """Return what is trained: three epochs, the first of which warms up."""
    preset, values = "tiny", [f"data.path={scratch / 'data'}"]
    if name == "qwen":
        preset, values = "qwen2-vl-2b", [*values, f"model.trunk={scratch / 'qwen'}"]
        values += ["data.image_size=112", "model.dtype=float32", "scale.cpus_per_worker=0.5"]
    config = load(None, values, preset)
    return base_config(config, "cpu", ITERATIONS, str(scratch / f"{time.time_ns()}"))


def measure(preset: str, lever: str, scratch: Path) -> dict[str, Any]:
    """Train with a lever in this process."""
    config, device = settings(preset, scratch), torch.device("cpu")
    torch.set_num_threads(threads(config))
    record, started = scratch / "record.json", time.time()
    with LEVERS[preset][lever]():
        train("here", config, device, Stopwatch(record, config.train.epochs, "cpu"))
    return figures(json.loads(record.read_text()), started, config.train.batch_size, "cpu")


def main(rounds: str = "3") -> None:
    """Print a table a preset."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        dataset(load(None, []), ITERATIONS, scratch)
        random_qwen.write(str(scratch / "qwen"), TEXT, VISION)
        for preset, levers in LEVERS.items():
            found: dict[str, list[Any]] = {lever: [] for lever in levers}
            for lever in list(levers) * int(rounds):
                command = [sys.executable, __file__, preset, lever, folder]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[lever].append(json.loads(done.stdout.splitlines()[-1]))
            print_table(preset, {lever: median(parts) for lever, parts in found.items()})


def print_table(preset: str, found: dict[str, Any]) -> None:
    """Print what was measured, a lever a row."""
    print(f"\n| {preset} | ms an iteration | waiting | clip, step | validation, s | GiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for lever, row in found.items():
        ms, steps = row["ms"], ("coord clip", "coord step", "done clip", "done step")
        print(
            f"| {lever} | {row['ms_iteration']:.1f} | {ms['waiting for data']:.1f} "
            f"| {sum(ms[name] for name in steps):.1f} "
            f"| {row['validation_s']:.2f} | {row['host_peak_gib']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
    else:
        main(*sys.argv[1:])
