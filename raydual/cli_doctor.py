"""`raydual doctor`: whether this machine or cluster can train what is asked for."""

from pathlib import Path
from typing import Annotated

import typer

from raydual.config import DEFAULT_PRESET, presets
from raydual.errors import ConfigError


def doctor(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG.yaml] [key=value]...",
            help="A configuration over the preset, or the search file of a search; then overrides.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Where the defaults come from: {', '.join(presets())}. "
            f"[default: {DEFAULT_PRESET}]"
        ),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            metavar="cluster.yaml",
            help="The file of `ray up`: also say whether it fits once the cluster has grown.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Look whether a training, or a search, would fit and run, and say what to do if not.

    Versions, CPUs, GPUs, memory and object store of the nodes, what is installed on each, a write
    to run.storage and the disk's free space, the dataset, the trunk, Weights & Biases, and the sum
    of what the workers take beside what there is.

    RAY_ADDRESS names the cluster to look at; without it Ray is started on this machine. With
    --cluster, what does not fit yet may fit once the cluster has grown.

    Exit code 1 if anything would keep the training from running.

    Examples:

    - `raydual doctor` looks at what `raydual train` would do here

    - `raydual doctor cells.yaml scale.num_workers=8 --cluster cluster.yaml`

    - `raydual doctor tune_configs/lr_patience.yaml concurrency=4 --json`
    """
    given = list(arguments or [])
    file = Path(given.pop(0)) if given and "=" not in given[0] else None
    if file is not None and not file.is_file():
        raise ConfigError(f"got {file}; expected a YAML file, or overrides as coord.lr=1e-4")
    from raydual.doctor.command import examine, show

    if not show(examine(file, given, preset, cluster), as_json):
        raise typer.Exit(1)
