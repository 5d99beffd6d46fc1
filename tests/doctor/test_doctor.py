"""What the doctor finds: on a real Ray, in real folders, and in cluster files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from raydual.cli import app
from raydual.config import load, with_values
from raydual.doctor import everything, here
from raydual.doctor.check import gib
from raydual.doctor.cluster import Report, gpu_check, node_check
from raydual.doctor.command import examine
from raydual.doctor.fit import GROWN, NOW, fit_checks
from raydual.doctor.growth import read_cluster_file
from raydual.doctor.size import sized
from raydual.doctor.storage import Probe, is_seen
from raydual.errors import ConfigError
from raydual.model.counter import DualTaskCounter
from raydual.tasks import objectives
from raydual.training.launch import with_absolute_paths
from raydual.training.optim import TaskOptimizer
from raydual.tuning.space import build_search
from raydual.version import __version__

ROOT = Path(__file__).parents[2]
GROWING = {
    "max_workers": 3,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 2}, "node_config": {}},
        "small": {"resources": {"CPU": 4}, "node_config": {}},
        "gpu": {"resources": {"CPU": 8, "GPU": 2}, "max_workers": 1, "node_config": {}},
    },
}


def cluster_file(folder: Path, **changes: object) -> Path:
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(GROWING | changes))
    return file


def verdict_of(found: dict, name: str) -> str:
    return next(check["verdict"] for check in found["checks"] if check["name"] == name)


def run(*args: object) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["doctor", *map(str, args), "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_a_training_that_fits(cluster: None, dataset: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{path: {dataset}}}\nrun: {{storage: {tmp_path / 'runs'}}}\n")
    code, found = run(file, "scale.num_workers=2", "scale.cpus_per_worker=0.5")
    checks = {check["name"]: check for check in found["checks"]}
    assert code == 0
    assert found["fits"]
    assert {check["verdict"] for check in checks.values()} == {"ok"}
    assert checks["CPUs"]["found"].startswith("2 on 1 node(s)")
    assert checks["data.path"]["found"] == f"{dataset}: 48 training and 21 validation images"
    assert checks[NOW]["found"].endswith("x scale.cpus_per_worker=0.5 + 1 for Ray Data = 2 CPUs; "
                                         "the cluster has 2 on 1 node(s)")  # fmt: skip
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_does_not_fit_now_or_ever(cluster: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = ("scale.num_workers=6", "scale.cpus_per_worker=2", f"run.storage={tmp_path}/file/runs",
             "model.trunk=./nothing", "data.path=nowhere")  # fmt: skip
    code, found = run(*given, "--cluster", cluster_file(tmp_path, max_workers=1))
    assert code == 1
    assert not found["fits"]
    failed = {c["name"]: c for c in found["checks"] if c["verdict"] == "fail"}
    assert set(failed) == {"storage", "model.trunk", "data.path", GROWN}
    assert "= 13 CPUs, but the cluster has 10 on 2 node(s): 1 head, 1 gpu" in failed[GROWN]["found"]
    assert "at most scale.num_workers=4 fit" in failed[GROWN]["remedy"]
    assert all(check["remedy"] for check in failed.values())
    assert verdict_of(found, NOW) == "warn"


def test_a_cluster_that_nobody_answers_for_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raydual", "doctor", "log.wandb=online"]
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1", "WANDB_API_KEY": "k" * 40}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nobody answers at RAY_ADDRESS=127.0.0.1:1" in " ".join(done.stdout.split())
    assert "fail: Ray: start that cluster, or unset RAY_ADDRESS" in " ".join(done.stdout.split())
    assert "online, a key is set here" in done.stdout
    assert "k" * 40 not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing.yaml"], "got nothing.yaml; expected a YAML file"),
        (["coord.learning_rate=1"], "coord.lr"),
        ([str(ROOT / "tune_configs/smoke.yaml"), "--preset", "tiny"], "base.preset"),
        (["--cluster", "nothing.yaml"], "nothing.yaml"),
        (["--cluster", str(ROOT / "tune_configs/smoke.yaml")], "available_node_types"),
    ],
)
def test_what_cannot_be_understood_is_an_error(args: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["doctor", *args])
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)


def fitted(tmp_path: Path, *overrides: str, now: dict | None = None, **changes: object) -> list:
    grown = read_cluster_file(cluster_file(tmp_path, **changes))
    return fit_checks(load(None, overrides), None, [now or {"CPU": 2.0}], grown)


def test_the_largest_cluster_is_chosen_for_what_is_asked(tmp_path: Path) -> None:
    cpus = read_cluster_file(cluster_file(tmp_path)).largest(4, 0)
    assert [name for name, _ in cpus] == ["head", "gpu", "small", "small"]
    gpus = read_cluster_file(cluster_file(tmp_path, max_workers=1)).largest(1, 1)
    assert [name for name, _ in gpus] == ["head", "gpu"]
    one = {"only": {"resources": {"CPU": 2}, "max_workers": 4}}
    alone = cluster_file(tmp_path, available_node_types=one, head_node_type=None)
    assert len(read_cluster_file(alone).largest(1, 0)) == 4  # the head, and max_workers=3
    with pytest.raises(ConfigError, match="head_node_type is 'other'; there are: gpu, head, small"):
        read_cluster_file(cluster_file(tmp_path, head_node_type="other"))


def test_a_cluster_that_grows_enough_and_one_that_does_not(tmp_path: Path) -> None:
    workers = ("scale.num_workers=4", "scale.cpus_per_worker=4")
    now, grown = fitted(tmp_path, *workers)
    assert (now.verdict, grown.verdict) == ("warn", "ok")
    assert "= 17 CPUs; the cluster has 18 on 4 node(s): 1 head, 1 gpu, 2 small" in grown.found
    now, grown = fitted(tmp_path, *workers, max_workers=2)
    assert (now.verdict, grown.verdict) == ("warn", "fail")
    assert "= 17 CPUs, but the cluster has 14 on 3 node(s)" in grown.found
    now, grown = fitted(tmp_path, *workers, now={"CPU": 17.0})
    assert (now.verdict, grown.verdict) == ("ok", "ok")


def test_a_gpu_worker_finds_its_cpus_beside_its_gpu(tmp_path: Path) -> None:
    workers = ("scale.num_workers=2", "scale.use_gpu=true")
    assert fitted(tmp_path, *workers, "scale.cpus_per_worker=4")[1].verdict == "ok"
    grown = fitted(tmp_path, *workers, "scale.cpus_per_worker=5")[1]
    assert grown.verdict == "fail"
    assert "at most scale.num_workers=1 fit" in grown.remedy


def test_without_growth_what_does_not_fit_fails() -> None:
    (now,) = fit_checks(load(None, ["scale.num_workers=9"]), None, [{"CPU": 2.0}], None)
    assert now.verdict == "fail"
    assert now.remedy.endswith("give --cluster cluster.yaml")
    (here,) = fit_checks(load(None, ["scale.num_workers=0"]), None, [{"CPU": 1.0}], None)
    assert here.verdict == "ok"


def test_a_search_fits_by_its_trials_at_a_time(tmp_path: Path) -> None:
    search = build_search({"space": {"coord.lr": {"choice": [1e-3, 1e-4]}}, "concurrency": 5})
    config = load(None, ["scale.num_workers=1", "scale.cpus_per_worker=4"])
    growth = read_cluster_file(cluster_file(tmp_path))
    now, grown = fit_checks(config, search, [{"CPU": 2.0}], growth)
    assert (now.verdict, grown.verdict) == ("warn", "fail")
    assert grown.found.startswith("5 trials at a time x 4 = 20 CPUs, but the cluster has 18 CPUs")
    fewer = search.model_copy(update={"concurrency": 4})
    (once,) = [c for c in fit_checks(config, fewer, [{"CPU": 2.0}], growth) if c.name == GROWN]
    assert once.verdict == "ok"
    assert once.found.startswith("4 trials at a time x 4 = 16 CPUs; the cluster has 18 CPUs")


def test_a_search_file_is_known_by_its_space(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list = []
    monkeypatch.setattr(everything, "look", lambda *given: seen.append(given) or [])
    examine(ROOT / "tune_configs/smoke.yaml", ["concurrency=3", "train.epochs=7"], None, None)
    ((config, search, growth),) = seen
    assert (search.concurrency, config.train.epochs, growth) == (3, 7, None)


def test_nodes_without_raydual_or_a_cuda_build_of_torch_fail() -> None:
    good = Report("a", version=__version__, sees_storage=True, gpus=1)
    assert node_check([good]).verdict == "ok"
    broken = node_check([good, Report("b", "No module named 'raydual'"), Report("c", version="0")])
    assert broken.verdict == "fail"
    assert f"{__version__} on 1 of 3; b: No module named 'raydual'; c: raydual 0" in broken.found
    blind = Report("b", version=__version__, gpus=0)
    config = load(None, ["scale.use_gpu=true"])
    there = {"GPU": 2.0, "accelerator_type:A10G": 1.0}
    assert gpu_check(config, there, 2, [good, good]).verdict == "ok"
    assert gpu_check(config, there, 2, [good, blind]).verdict == "fail"
    assert gpu_check(load(), there, 2, [good, good]).verdict == "warn"


def test_storage_that_nodes_do_not_see_fails(tmp_path: Path) -> None:
    probe = Probe(str(tmp_path))
    probe.write()
    assert is_seen(str(tmp_path), probe.folder)
    assert not is_seen(str(tmp_path / "elsewhere"), probe.folder)
    probe.delete()
    assert list(tmp_path.iterdir()) == []
    assert probe.check([], False).verdict == "ok"
    assert probe.check([], True).verdict == "warn"
    blind = probe.check(["10.0.0.7"], False)
    assert (blind.verdict, "not seen from 10.0.0.7" in blind.found) == ("fail", True)


@pytest.mark.parametrize(("strategy", "rank"), [("dual", 0), ("mixed", 4), ("independent", 4)])
def test_the_size_is_that_of_the_model_and_its_optimizers(strategy: str, rank: int) -> None:
    config = load(None, [f"train.strategy={strategy}", f"model.lora.r={rank}"])
    counter = DualTaskCounter.from_config(config)
    own = [p for o in objectives(config)
           for g in TaskOptimizer(counter, o, config, 1).optimizer.param_groups
           for p in g["params"]]  # fmt: skip
    weights = list(counter.parameters())
    size = sized(config)
    assert size.parameters == sum(p.numel() for p in weights)
    assert size.trained == sum(p.numel() for p in weights if p.requires_grad)
    moments = 2 * sum(p.nbytes for p in own)
    assert size.checkpoints == 4 * sum(p.nbytes for p in weights) + 2 * moments


def test_a_full_disk_and_an_unknown_trunk_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage("/")._replace(free=20 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    config = with_absolute_paths(load())
    assert [check.verdict for check in here.trunk(config, 1)] == ["ok", "fail"]
    unknown = with_values(config, {"data.image_size": 97})
    assert [check.verdict for check in here.trunk(unknown, 1)] == ["fail"]


def test_kept_features_need_room_on_the_disk(monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    wanted = [f"data.path={dataset}", "data.image_size=64", "data.views=3"]
    config = with_absolute_paths(load(None, wanted, preset="photo"))
    (_, disk) = here.trunk(config, 1)
    pictures = 3 * 48 + 21  # views of the training images, and the validation images
    # two bytes for each of 24, 40, 112 and 320 channels at 4, 8, 16 and 32 px
    each = 2 * (24 * 16**2 + 40 * 8**2 + 112 * 4**2 + 320 * 2**2)
    assert f"kept features {gib(each * pictures)}" in disk.found
    free = shutil.disk_usage("/")._replace(free=sized(config).checkpoints)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    assert [check.verdict for check in here.trunk(config, 1)] == ["ok", "fail"]


def test_versions_are_held_against_what_the_package_requires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert here.versions().verdict == "ok"
    required = ["torch>=99", "nothing-of-the-kind>=1", 'pytest>=99; extra == "dev"', "ray>=2"]
    monkeypatch.setattr(here.metadata, "requires", lambda name: required)
    found = here.versions()
    assert found.verdict == "fail"
    assert found.remedy == 'pip install "torch>=99" "nothing-of-the-kind>=1"'
