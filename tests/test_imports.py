"""The shape of the package: Ray only at the edge, imports in one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "raydual"
RAY_FILES = {
    "counting/evaluate.py",
    "data/stream.py",
    "training/cluster.py",
    "training/feature_pool.py",
    "doctor/cluster.py",
    "training/restarts.py",
    "training/trainer.py",
    "training/worker.py",
    "tuning/schedulers.py",
    "tuning/search.py",
    "tuning/trainable.py",
    "tuning/watch.py",
}
LAYERS = [
    {"errors", "version", "config", "config_tree", "credentials", "registration", "spot"},
    {"losses", "metrics", "tasks", "data", "model", "training.run_folder"},
    # training counts with these too
    {
        "counting.closed_loop",
        "counting.looks",
        "counting.one_count",
        "counting.samples",
        "counting.threshold",
    },
    {"training"},
    {"counting"},
    {"tuning"},
    {"report", "doctor", "bench"},
    {"cli", "cli_bench", "cli_count", "cli_data", "cli_doctor", "cli_report", "__main__"},
]
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(file: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def layer_of(module: str) -> int | None:
    parts = module.removeprefix("raydual").strip(".").split(".")
    for name in (".".join(parts[:2]), parts[0]):
        for i, names in enumerate(LAYERS):
            if name in names:
                return i
    return None


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_ray_is_imported_only_at_the_edge(file: Path) -> None:
    if file.relative_to(PACKAGE).as_posix() not in RAY_FILES:
        assert not {n for n in imported(file) if n == "ray" or n.startswith("ray.")}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    own = layer_of(".".join(file.relative_to(PACKAGE).with_suffix("").parts))
    if own is None:
        assert file.name == "__init__.py"
        return
    for name in imported(file):
        if name.startswith("raydual."):
            assert (layer_of(name) or 0) <= own, f"{file.name} imports {name}"


def test_every_listed_ray_file_is_there() -> None:
    assert all("ray" in {n.split(".")[0] for n in imported(PACKAGE / f)} for f in RAY_FILES)


@pytest.mark.parametrize("command", ["train", "tune", "doctor", "bench"])
def test_help_loads_neither_torch_nor_ray(command: str) -> None:
    code = (
        "import sys; from raydual.cli import app; "
        "from typer.testing import CliRunner; "
        f"r = CliRunner().invoke(app, ['{command}', '--help']); "
        "assert r.exit_code == 0, r.output; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'ray', 'transformers'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import raydual

    for name in raydual.__all__:
        assert getattr(raydual, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        raydual.nothing  # noqa: B018
