"""`raydual bench`: where the time of a training goes on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from raydual.config import DEFAULT_PRESET, load, presets


class Device(StrEnum):
    """What the model runs on."""

    cpu = "cpu"
    cuda = "cuda"


def bench(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="Such as train.batch_size=4."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file over the preset.")] = None,
    preset: Annotated[
        str, typer.Option(help=f"Where the defaults come from: {', '.join(presets())}.")
    ] = DEFAULT_PRESET,
    device: Annotated[Device, typer.Option(help="What the model runs on.")] = Device.cpu,
    iterations: Annotated[
        int, typer.Option(min=2, help="Iterations of each of the three epochs of a row.")
    ] = 60,
    rounds: Annotated[
        int, typer.Option(min=1, help="Measure each row so often, in turn; medians count.")
    ] = 1,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS",
            help="Comma-separated: reference, dual, ray, mixed, independent, data, scaling.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the figures here, as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
) -> None:
    """Measure the training loop side by side with others, in one run; nothing else should run.

    Each row is trained for three short epochs in a process of its own, with the same batches,
    threads and precision; the first epoch warms up.

    - **reference**: the two-task loop as one would write it first, with vocabulary logits, all
      hidden states, the image processor inside the step, one DDP and torch's DataLoader

    - **dual**: this loop without Ray; **ray**: the same in a TorchTrainer of one worker

    - **mixed**, **independent**: one summed loss; two trunks

    - **data**: rows/s of torch's DataLoader and of the stream on Ray Data, without a model

    - **scaling**: one worker on one core, two workers on two (CPU only)

    An iteration is split into waiting for data, copying, and each task's forward and backward pass,
    clipping and step. On a GPU the split is that of the last epoch, in which each stage is waited
    for, and iterations/s those of the one before. Arithmetic is set against a large matrix product.

    Images are drawn unless data.path is given; run.*, train.epochs and train.max_iterations are set
    by the benchmark.

    Exit code 1 if a row could not be measured, 143 after SIGTERM.

    Examples:

    - `raydual bench` takes minutes

    - `raydual bench --only reference,dual --iterations 30 train.batch_size=4`

    - `raydual bench --preset qwen2-vl-2b --device cuda model.trunk=FOLDER --out bench.json`
    """
    settings = load(config, overrides or [], preset)
    names = [name.strip() for name in only.split(",") if name.strip()] if only else []
    from raydual.bench.command import bench as measure
    from raydual.bench.command import check_out, show

    check_out(out)
    show(measure(settings, device.value, iterations, rounds, names), as_json, out)
