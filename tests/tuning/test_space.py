"""Search files: what they mean, and what is wrong with them, before any trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raydual.errors import ConfigError
from raydual.tuning.checks import load_search
from raydual.tuning.resources import check_capacity, with_resources
from raydual.tuning.space import Search, build_search, most_epochs

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "tune_configs").glob("*.yaml"))
LR = {"coord.lr": {"loguniform": [1e-4, 1e-3]}}
PATIENCE = {"coord.patience": {"choice": [5, 2]}, "done.patience": {"randint": [1, 3]}}


def load(tmp_path: Path, tree: dict, *overrides: str):  # type: ignore[no-untyped-def]
    file = tmp_path / "search.yaml"
    file.write_text(yaml.safe_dump(tree))
    return load_search(file, overrides)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_search_can_start(file: Path) -> None:
    search, config = load_search(file)
    assert search.trials >= 2
    assert check_capacity(search, with_resources(search, config), [{"CPU": 2.0}]) == 2


def test_the_shipped_searches_are_all_there() -> None:
    assert {file.stem for file in SHIPPED} == {
        "lr_patience",
        "smoke",
        "lr_grid",
        "lora",
        "strategies",
    }


def test_replayed_patience_is_not_sampled_but_set_to_its_largest() -> None:
    search = build_search({"space": LR | PATIENCE})
    assert search.replayed == {"coord.patience": [2, 5], "done.patience": [1, 2, 3]}
    assert list(search.sampled) == ["coord.lr"]
    assert search.settings({"coord.lr": 2e-4}) == {
        "coord.lr": 2e-4, "coord.patience": 5, "done.patience": 3,
    }  # fmt: skip
    sampled = build_search({"space": LR | PATIENCE, "patience": "sample"})
    assert sampled.replayed == {}
    assert list(sampled.sampled) == [*LR, *PATIENCE]


def test_joint_keys_are_drawn_together() -> None:
    search = build_search(
        {"space": {"train.strategy, train.epochs": {"choice": [["dual", 1], ["mixed", 2]]}},
         "searcher": "grid"}
    )  # fmt: skip
    drawn = {"train.strategy, train.epochs": 1}
    assert search.settings(drawn) == {"train.strategy": "mixed", "train.epochs": 2}
    assert search.trials == 2


def test_overrides_reach_the_search_and_the_configuration(tmp_path: Path) -> None:
    tree = {"base": {"overrides": {"train.epochs": 7, "done": {"lr": 0.1}}}, "space": LR}
    search, config = load(
        tmp_path, tree, "num_samples=3", "train.batch_size=5", "halving.grace_epochs=2",
        "space.done.lr={uniform: [0.1, 0.2]}",
    )  # fmt: skip
    assert (search.num_samples, search.halving.grace_epochs) == (3, 2)
    assert list(search.space) == ["coord.lr", "done.lr"]
    assert (config.train.epochs, config.train.batch_size, config.done.lr) == (7, 5, 0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": {"coord.learning_rate": {"choice": [1]}}}, "learning_rate.*near.*coord.lr"),
        ({"space": {"coord": {"choice": [1]}}}, "unknown key 'coord'"),
        ({"space": {"coord.lr": {"loguniform": [0, 1]}}}, "space.coord.lr.*above 0"),
        ({"space": {"coord.lr": {"loguniform": [1e-2, 1e-3]}}}, "is empty"),
        ({"space": {"coord.lr": {"choice": []}}}, "space.coord.lr.choice"),
        ({"space": {"coord.lr": {"uniform": [-1, 1]}}}, "coord.lr: got -1.0; .*greater than 0"),
        ({"space": {"coord.lr": {"choice": [1e-3], "uniform": [1, 2]}}}, "give one of"),
        ({"space": {"coord.lr": 1e-3}}, "space.coord.lr"),
        ({"space": {"train.epochs": {"uniform": [1, 4]}}}, "train.epochs"),
        ({"space": {"coord.patience": {"uniform": [1, 4]}}}, "coord.patience"),
        ({"space": {"run.name": {"choice": ["a"]}}}, "run.name is the same for all"),
        ({"space": {"train.strategy,train.epochs": {"choice": ["dual"]}}}, "joint keys"),
        ({"space": {}}, "space: it is empty"),
        ({"space": PATIENCE}, "need one training"),
        ({"searcher": "bayes"}, "searcher"),
        ({"sampler": "tpe"}, "unknown key 'sampler'"),
        ({"searcher": "grid"}, "space.coord.lr: a grid needs"),
        ({"searcher": "grid", "space": {"coord.lr": {"choice": [1e-3]}}, "num_samples": 3},
         "num_samples: a grid has 1"),
        ({"trial_scheduler": "asha"}, "halving.metric: asha needs one of .*val/loss_coord"),
        ({"trial_scheduler": "asha", "halving": {"metric": "val/loss_cord"}},
         "unknown key 'val/loss_cord'; near it: val/loss_coord"),
        ({"trial_scheduler": "asha-all", "halving": {"metric": "cost"}}, "asha-all takes none"),
        ({"trial_scheduler": "asha-all", "halving": {"grace_epochs": 12}}, "none would ever be"),
        ({"trial_scheduler": "pbt", "base": {"overrides": {"scale.num_workers": 2}}},
         "pbt copies the state of one process, but scale.num_workers=2"),
        ({"trial_scheduler": "pbt", "space": LR | {"train.batch_size": {"choice": [1, 2]}}},
         "train.batch_size: pbt changes coord.lr and done.lr"),
        ({"trial_scheduler": "pbt", "num_samples": 1}, "at least 2 trials"),
        ({"trial_scheduler": "pbt", "concurrency": 2}, "leave it out"),
        ({"base": {"overrides": {"coord.larning": 1}}}, "coord.larning"),
        ({"space": {"data.path": {"choice": ["a", "b"]}}}, "data.path is the same for all"),
        ({"space": {"coord.lr, coord.patience": {"choice": [[1e-3, 2]]}}},
         "name it apart, or set patience=sample"),
        ({"space": LR | {"coord.lr, done.lr": {"choice": [[1e-3, 1e-3]]}}}, "is there twice"),
        ({"space": {"train.epochs, coord.lr": {"choice": [[2, 1e-3]]}},
          "trial_scheduler": "asha-all", "halving": {"grace_epochs": 2}}, "trials have 2 epochs"),
        ({"base": {"preset": "huge"}}, "no preset 'huge'"),
        ({"num_samples": 0}, "num_samples: got 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_the_first_trial(
    tmp_path: Path, change: dict, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load(tmp_path, {"space": LR, "base": {"overrides": {"scale.num_workers": 1}}} | change)
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_of_the_search_file_is_near_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'numsamples'; near it: num_samples"):
        load(tmp_path, {"space": LR}, "numsamples=3")


def sized(*overrides: str, **keys: object) -> tuple[Search, object]:
    from raydual.config import load

    search = build_search({"space": LR, **keys})
    return search, with_resources(search, load(None, overrides))


def test_capacity_shows_its_arithmetic() -> None:
    one = sized("scale.num_workers=1", "scale.cpus_per_worker=1", num_samples=9)
    assert check_capacity(*one, [{"CPU": 6.0}]) == 6
    assert check_capacity(*one, [{"CPU": 99.0}]) == 9
    many = sized("scale.num_workers=1", "scale.cpus_per_worker=1", concurrency=5)
    with pytest.raises(ConfigError, match=r"5 trials at a time x 1 = 5 CPUs, .* has 4 CPUs"):
        check_capacity(*many, [{"CPU": 4.0}])
    nested = sized("scale.num_workers=2", "scale.cpus_per_worker=0.5", concurrency=2)
    assert check_capacity(*nested, [{"CPU": 4.0}]) == 2
    words = (
        r"\(0.01 for its driver \+ 2 workers x 0.5\) \+ 1 for Ray Data = 3.02 CPUs.*not one trial"
    )
    with pytest.raises(ConfigError, match=words):
        check_capacity(*nested, [{"CPU": 2.0}])
    shared = sized("scale.num_workers=1", "scale.use_gpu=true", resources={"gpu": 0.25, "cpu": 1})
    assert check_capacity(*shared, [{"CPU": 16.0, "GPU": 1.0}]) == 4
    with pytest.raises(ConfigError, match=r"0 GPUs on 1 node.* and not one trial fits; lower"):
        check_capacity(*shared, [{"CPU": 16.0}])


def test_a_process_has_to_fit_on_one_node() -> None:
    three = sized("scale.num_workers=1", "scale.cpus_per_worker=3", num_samples=9)
    assert check_capacity(*three, [{"CPU": 4.0}] * 3) == 3  # 12 CPUs would hold four
    three = sized("scale.num_workers=1", "scale.cpus_per_worker=3", concurrency=4)
    with pytest.raises(ConfigError, match=r"= 12 CPUs, .* 12 CPUs on 3 .* concurrency=3 fits"):
        check_capacity(*three, [{"CPU": 4.0}] * 3)
    nested = sized("scale.num_workers=2", "scale.cpus_per_worker=3", num_samples=9)
    assert check_capacity(*nested, [{"CPU": 4.0}] * 4) == 2
    shared = sized("scale.num_workers=1", "scale.use_gpu=true", resources={"gpu": 0.6, "cpu": 1})
    assert check_capacity(*shared, [{"CPU": 8.0, "GPU": 1.0}] * 2 + [{"CPU": 8.0}]) == 2


def test_choices_are_as_the_configuration_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    (tmp_path / "trunk").mkdir()
    file.write_text(
        "base: {overrides: {scale.num_workers: 1}}\n"
        "space:\n"
        "  coord.lr: {choice: [1e-3, 1.0e6, 2]}\n"
        "  done.lr, train.epochs: {choice: [[1e-4, '3'], [2e-4, 5]]}\n"
        f"  model.trunk: {{choice: ['{tmp_path}/here/../trunk']}}\n"
    )
    search, config = load_search(file)
    assert search.space["coord.lr"].choice == [1e-3, 1e6, 2.0]
    assert search.space["done.lr, train.epochs"].choice == [[1e-4, 3], [2e-4, 5]]
    assert most_epochs(search, config) == 5


def test_a_share_of_a_gpu_needs_one_process() -> None:
    with pytest.raises(ConfigError, match="use_gpu=false"):
        sized("scale.num_workers=1", resources={"gpu": 0.5})
    with pytest.raises(ConfigError, match="one whole GPU"):
        sized("scale.num_workers=2", "scale.use_gpu=true", resources={"gpu": 0.5})
