"""What each change for GPUs gives: an iteration of `dual` on a Qwen2-VL under LoRA, one more a row.

python benchmarks/gpu_levers.py FOLDER         # of benchmarks/random_qwen.py; minutes
python benchmarks/gpu_levers.py FOLDER cpu     # to try the script, with a small model
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from unittest import mock

import torch

from raydual.config import load
from raydual.data.batches import BatchStream
from raydual.data.formats import synthetic
from raydual.data.loading import load_here
from raydual.data.schema import write_dataset
from raydual.model import trunk
from raydual.model.counter import DualTaskCounter
from raydual.tasks import SEPARATE
from raydual.training.loop import iteration
from raydual.training.parallel import ParallelCounter
from raydual.training.run import start
from raydual.training.watch import GradientCosine, Watch

STEPS = (
    "plain",
    "nothing computed again",
    "adapters without float32 copies",
    "tower once for both tasks",
    "compiled, CUDA graphs",
)
WARM_UP, TIMED = 6, 20


def measure(step: int, folder: str, device: torch.device) -> str:
    """Return a row: milliseconds an iteration, GiB held, seconds of the first iteration."""
    with tempfile.TemporaryDirectory() as data, contextlib.ExitStack() as without:
        rows = synthetic.rows(synthetic.SynthConfig(images=300, splits=(0.9, 0.05, 0.05)))
        write_dataset(rows, data, source="bench")
        config = load(
            None,
            [
                *(f"model.trunk={folder}", f"data.path={data}", "scale.num_workers=0"),
                f"scale.use_gpu={device.type == 'cuda'}",
                f"model.gradient_checkpointing={step < 1}",
                f"model.compile={step >= 4}",
                *(["data.image_size=32", "model.dtype=bfloat16"] if device.type == "cpu" else []),
            ],
            "qwen2-vl-2b",
        )
        if step < 2:
            without.enter_context(mock.patch.object(trunk, "leave_types_to_autocast"))
        if step < 3:
            without.enter_context(mock.patch.object(ParallelCounter, "tower_is_frozen", False))
        counter = DualTaskCounter.from_config(config, torch.bfloat16)
        stream = BatchStream(config, counter.prompter, load_here)
        model, state = start(config, counter, stream, device)
        model.counter.train()
        watch, cosine = Watch(SEPARATE, 1, stream), GradientCosine()
        seconds = []
        for micro in without.enter_context(contextlib.closing(stream.train(1))):
            wait(device)
            started = time.perf_counter()
            moved = [{name: b.to(device) for name, b in by_name.items()} for by_name in micro]
            iteration(model, state.optimizers, SEPARATE, moved, watch, cosine)
            wait(device)
            seconds.append(time.perf_counter() - started)
            if len(seconds) == WARM_UP + TIMED:
                break
    held = torch.cuda.max_memory_reserved() / 2**30 if device.type == "cuda" else 0.0
    mean = 1000 * sum(seconds[WARM_UP:]) / TIMED
    return f"| {STEPS[step]} | {mean:.0f} | {held:.1f} | {seconds[0]:.1f} |"


def wait(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(folder: str, device: str = "cuda", step: str = "") -> None:
    """Print the table, each row by a process of its own."""
    if step:
        print(measure(int(step), folder, torch.device(device)))
        return
    print("| one more a row | ms an iteration | GiB held | first iteration, s |")
    print("| --- | --- | --- | --- |", flush=True)
    for number in range(len(STEPS)):
        subprocess.run([sys.executable, __file__, folder, device, str(number)], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
