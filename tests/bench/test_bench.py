"""`raydual bench` from rows to tables; no timing is asserted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from rich.console import Console

from raydual.bench.command import measure, median
from raydual.bench.rows import LOOP, ONLY, Row, base_config, images_needed, rows
from raydual.bench.tables import loop_table, phases, print_report, report
from raydual.cli import main
from raydual.config import load
from raydual.errors import ConfigError, TrainingError

COORD = ["coord forward", "coord backward", "coord clip", "coord step"]
DONE = [name.replace("coord", "done") for name in COORD]
MIXED = [name.replace("coord", "mixed") for name in COORD]
SETTINGS = {
    "code": "0.1.0", "date": "2026-01-01 00:00", "trunk": "tiny", "image_size": 96,
    "batch_size": 8, "lora_r": 0, "device": "cpu", "iterations": 2, "rounds": 1, "seconds": 1.0,
}  # fmt: skip
MACHINE = {
    "machine": {
        "processor": "Some", "cores": 2, "gpu": None, "threads": 1, "python": "3", "torch": "2",
        "ray": "2", "transformers": "5",
    },
    "dtype": "float32", "ceiling_flops_per_s": 100e9, "iteration_flops": {"dual": 8, "mixed": 4},
}  # fmt: skip


def figures(per_s: float, names: list[str]) -> dict[str, Any]:
    ms = {"waiting for data": 1.0, "copying to the device": 1.0, **dict.fromkeys(names, 2.0)}
    return {
        "iterations_per_s": per_s, "images_per_s": 8 * per_s, "ms_iteration": 20.0,
        "ms": ms | {"rest": 1.0}, "host_peak_gib": per_s / 10, "host_growth_gib": 0.5,
        "device_peak_gib": 0.0, "start_up_s": 1.0, "first_batch_s": 0.1, "validation_s": 0.1,
        "saving_s": 0.1,
    }  # fmt: skip


def made_up() -> dict[str, Any]:
    rates = {"first_rows_per_s": 1.0, "later_rows_per_s": 2.0}
    rates |= {"first_rows_per_core_s": 3.0, "later_rows_per_core_s": 4.0}
    found: dict = {}
    for row in rows([], "cpu"):
        if row.table == "machine":
            found[row] = MACHINE
        elif row.table == "data":
            found[row] = rates
        else:
            names = ["processor", *COORD, *DONE] if row.name == "reference" else [*COORD, *DONE]
            per_s = {"reference": 5.0, "dual": 10.0, "mixed": 16.0}.get(row.name, 8.0)
            per_s = per_s if row.workers == 1 else 7.0
            found[row] = figures(per_s, MIXED if row.name == "mixed" else names)
            found[row]["images_per_s"] *= row.workers
    return report(SETTINGS, found)


def test_every_row_can_be_asked_for_alone_with_the_machine() -> None:
    for name in ONLY:
        found = rows([name], "cpu")
        assert found[0].table == "machine"
        assert len(found) == (3 if name in ("data", "scaling") else 2)
    assert not [row for row in rows([], "cuda") if row.table == "scaling"]
    with pytest.raises(ConfigError, match="--only: got 'plain'"):
        rows(["dual", "plain"], "cpu")


def test_rows_differ_in_what_they_are_about_alone() -> None:
    ends_early = ["coord.patience=1", "done.patience=1", "train.stop=any", "train.count_every=1"]
    own = ["train.batch_size=4", "scale.num_workers=2", "train.strategy=mixed", "coord.lr=0.5"]
    given = load(None, [*own, *ends_early])
    config = base_config(given, "cpu", 7, "somewhere")
    assert (config.train.strategy, config.train.epochs, config.train.max_iterations) == (
        "dual",
        3,
        7,
    )
    assert (config.scale.num_workers, config.train.batch_size) == (0, 4)
    assert (config.coord.patience, config.done.patience, config.train.count_every) == (3, 3, 0)
    assert config.coord.lr == 0.5
    assert images_needed(config, 7) * 0.9 >= 2 * 7 * 4
    values = {row.name: row.values for row in rows(list(LOOP), "cpu")[1:]}
    assert values["reference"] == values["dual"] == {}


def test_ratios() -> None:
    ratios = made_up()["ratios"]
    assert ratios["dual over reference, iterations/s"] == 2
    assert ratios["dual over mixed, passes/s"] == pytest.approx(20 / 16)
    assert ratios["ray over dual, iterations/s"] == pytest.approx(0.8)
    assert ratios["dual, waiting for data"] == pytest.approx(0.05)
    assert ratios["2 workers over 1, images/s"] == pytest.approx(14 / 8)


def test_model_flops_are_those_of_two_passes_but_for_mixed() -> None:
    loop = made_up()["loop"]
    assert loop["dual"]["model_flops_per_s"] == 80
    assert loop["reference"]["model_flops_per_s"] == 40
    assert loop["mixed"]["model_flops_per_s"] == 64


def test_every_phase_has_its_line_and_every_row_its_column() -> None:
    found = made_up()
    first = ["waiting for data", "copying to the device", "processor"]
    assert phases(found["loop"]) == [*first, *COORD, *DONE, *MIXED, "rest"]
    table = loop_table(found)
    assert table is not None
    assert [column.header for column in table.columns] == ["loop", *LOOP]
    out = io.StringIO()
    print_report(json.loads(json.dumps(found)), Console(file=out, width=120))
    for words in (
        "| loop ",
        "| ratio ",
        "| data, no model ",
        "| scaling ",
        "matrix product: 100.0",
    ):
        assert words in out.getvalue()


def test_rounds_end_in_medians() -> None:
    parts = [{"a": {"b": b}, "name": "x", "n": 1} for b in (1.0, 9.0, 2.0)]
    assert median(parts) == {"a": {"b": 2.0}, "name": "x", "n": 1}


def bench(*args: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "raydual", "bench", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_a_benchmark_prints_json_that_adds_up(dataset: str, tmp_path: Path) -> None:
    done = bench(
        "--only", "reference,dual", "--iterations", 2, "--json", "--out", "b.json",
        f"data.path={dataset}", "data.image_size=48", "train.batch_size=4", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "b.json").read_text()) == found
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    assert set(found["loop"]) == {"reference", "dual"}
    assert found["machine"]["threads"] == 1
    assert found["iteration_flops"]["dual"] > found["iteration_flops"]["mixed"] > 0
    for name, row in found["loop"].items():
        wanted = {"waiting for data", "copying to the device", "rest", *COORD, *DONE}
        assert set(row["ms"]) == wanted | ({"processor"} if name == "reference" else set())
        assert sum(row["ms"].values()) == pytest.approx(row["ms_iteration"])
        assert row["ms_iteration"] == pytest.approx(1000 / row["iterations_per_s"])
        assert row["host_peak_gib"] > row["host_growth_gib"] > 0


def test_a_benchmark_that_is_ended_leaves_no_files_and_no_process(tmp_path: Path) -> None:
    """The reference has processes of its own, which load its data."""
    command = [sys.executable, "-m", "raydual", "bench", "--only", "reference"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=-1, stderr=-1
    )
    family, below = psutil.Process(process.pid), []
    try:
        deadline = time.monotonic() + 120
        while len(below := family.children(recursive=True)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert list(tmp_path.glob("raydual-bench-*/0-1/job.json"))
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        assert not [one for one in below if one.is_running()]
        assert not list(tmp_path.glob("raydual-bench-*"))
        assert not list(tmp_path.glob("pymp-*"))
    finally:
        process.kill()
        for one in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--only", "plain"], "--only: got 'plain'"),
        (["--device", "cuda"], "finds no GPU"),
        (["coord.learning_rate=1"], "coord.lr"),
        (["data.path=nowhere"], "nowhere"),
        (["--out", "no/where.json"], "--out"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    args: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    if "cuda" in args and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr("sys.argv", ["raydual", "bench", "--iterations", "2", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert words in printed


def test_a_row_that_ends_without_figures_is_an_error_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = base_config(load(None, []), "cpu", 2, str(tmp_path))
    with pytest.raises(TrainingError, match=r"odd ended with exit code 1: .*no_such_kind"):
        measure(Row("loop", "odd", "no_such_kind"), config, "cpu", tmp_path / "r")
