"""`ray job submit` of a training and a search, on a head of its own that has no raydual."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from raydual.training.run_folder import METRICS_FILE
from tests.cluster.heads import RAY, Head, head, listening

ROOT = Path(__file__).parents[2]
TINY = {
    "data.image_size": 48,
    "train.batch_size": 4,
    "train.epochs": 1,
    "train.max_iterations": 2,
    "train.max_val_batches": 1,
    "train.count_every": 0,
    "log.wandb": "disabled",
    "log.images": 0,
    "scale.num_workers": 1,
    "scale.cpus_per_worker": 1,
}
OF_THE_JOB = "metrics-of-the-job.jsonl"


@pytest.fixture(scope="module")
def local_head() -> Iterator[Head]:
    with head("--num-cpus=2") as found:
        yield found


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout whose runs are told apart by the name of one file."""
    folder = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "raydual", folder / "raydual", ignore=ignore)
    source = folder / "raydual" / "training" / "run_folder.py"
    source.write_text(source.read_text().replace(f'"{METRICS_FILE}"', f'"{OF_THE_JOB}"'))
    return folder


def submit(head: Head, working_dir: Path, *command: str) -> tuple[int, str]:
    """Submit a job and follow it to its end; return the exit code and what was printed."""
    done = head.run(
        RAY, "job", "submit", f"--address={head.dashboard}", f"--working-dir={working_dir}",
        "--", "python", "-m", "raydual", *command,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_training_is_submitted_followed_and_found_in_its_storage(
    local_head: Head, working_dir: Path, dataset: str, tmp_path: Path
) -> None:
    values = {**TINY, "data.path": dataset, "run.storage": tmp_path, "run.name": "job"}
    code, said = submit(
        local_head, working_dir, "train", *(f"{key}={value}" for key, value in values.items())
    )
    assert code == 0, said
    assert f"Joining Ray at {local_head.address}" in said
    assert f"Ray's dashboard is at {local_head.dashboard}" in said
    assert "Epoch 1:" in said
    # written by a worker: so it ran the code of the working directory, not an installed one
    (line,) = (tmp_path / "job" / OF_THE_JOB).read_text().splitlines()
    assert json.loads(line)["epoch"] == 1
    assert (tmp_path / "job" / "latest_checkpoint" / "raydual.json").is_file()


def test_a_search_is_submitted_and_its_results_are_in_its_storage(
    local_head: Head, working_dir: Path, dataset: str, tmp_path: Path
) -> None:
    search = {
        "base": {"overrides": {**TINY, "data.path": dataset}},
        "space": {"coord.lr": {"choice": [1e-4, 1e-3]}},
        "searcher": "grid",
    }
    (working_dir / "search.yaml").write_text(yaml.safe_dump(search))
    code, said = submit(
        local_head, working_dir, "tune", "search.yaml", f"run.storage={tmp_path}", "run.name=s"
    )
    assert code == 0, said
    assert f"Ray's dashboard is at {local_head.dashboard}" in said
    results = json.loads((tmp_path / "s" / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == ["finished", "finished"]
    assert len(list((tmp_path / "s" / "trials").glob(f"*/{OF_THE_JOB}"))) == 2


def test_a_job_that_fails_says_why_and_fails_the_submit(
    local_head: Head, working_dir: Path
) -> None:
    code, said = submit(local_head, working_dir, "train", "coord.lr=-1")
    assert code == 1
    assert "error: coord.lr" in said


def test_the_head_answers_on_loopback_alone(local_head: Head) -> None:
    where = listening(local_head.process)
    assert where
    assert {ip.removeprefix("::ffff:") for ip, _ in where} == {"127.0.0.1"}, where
