"""Features that are kept: the same as fresh ones, computed once, resumed where they were left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from raydual.config_tree import Config
from raydual.data.batches import BatchStream
from raydual.data.features import KeptFeatures
from raydual.data.loading import load_here
from raydual.data.stream import load_with_ray
from raydual.errors import CheckpointError, ConfigError, DataError, StorageError
from raydual.model.counter import DualTaskCounter
from raydual.model.eyes import PyramidEyes
from raydual.training.feature_pool import make_on_ray
from raydual.training.kept import FeatureMaker, kept_features, make_here, missing
from raydual.training.launch import launch, resumed
from tests.model.families import FAMILIES, write_checkpoint
from tests.training.runs import history, run, weights

PHOTO = (
    "model.trunk=photo",
    "data.image_size=64",
    "data.mark.style=embedding",
    "coord.match=all",
    "model.freeze_tower=true",
    "model.lora.r=0",
)
VIEWS = ("data.views=3", "data.augment=true")


def kept_of(config: Config) -> KeptFeatures:
    kept = kept_features(config)
    assert kept is not None
    return kept


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images the tower has looked at, each time."""
    seen: list[int] = []
    look = PyramidEyes.look

    def counted(self: PyramidEyes, *args: object) -> torch.Tensor:
        features = look(self, *args)  # type: ignore[arg-type]
        seen.append(len(features))
        return features

    monkeypatch.setattr(PyramidEyes, "look", counted)
    return seen


@pytest.mark.parametrize("strategy", ["dual", "mixed", "independent"])
def test_training_on_kept_features_is_training_on_fresh_ones(
    small: Callable, strategy: str
) -> None:
    own = (*PHOTO, f"train.strategy={strategy}", "coord.lr=1e-3", "done.lr=1e-3")
    fresh, kept = small(*own, "run.name=fresh"), small(*own, "data.views=1", "run.name=kept")
    run(fresh)
    run(kept)
    for one, other in zip(history(fresh), history(kept), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_family_trains_on_kept_features(small: Callable, family, tmp_path: Path) -> None:
    trunk = write_checkpoint(family, tmp_path / "trunk")
    own = (
        f"model.trunk={trunk}",
        f"data.image_size={family.image_size}",
        "data.mark.style=embedding",
        "coord.match=all",
        "model.lora.r=4",
        "model.lora.dropout=0",
        "train.epochs=1",
    )
    fresh, kept = small(*own, "run.name=fresh"), small(*own, "data.views=1", "run.name=kept")
    run(fresh)
    run(kept)
    assert history(fresh)[0] == pytest.approx(history(kept)[0], rel=1e-3, abs=1e-5)


def test_an_image_is_looked_at_once_a_view_whatever_the_epochs(
    small: Callable, looks: list[int]
) -> None:
    config = small(*PHOTO, *VIEWS, "log.images=0")
    run(config)
    assert sum(looks) == 48 * 3 + 21
    looks.clear()
    run(small(*PHOTO, *VIEWS, "log.images=0", "run.name=second", "coord.lr=1e-4"))
    assert looks == []


def test_another_tower_size_or_number_of_views_has_features_of_its_own(small: Callable) -> None:
    given = (("data.image_size=96",), ("data.views=2",), ("data.max_objects=3",), ("seed=1",))
    configs = [small(*PHOTO, *VIEWS, *own) for own in ((), *given)]
    assert len({kept_of(config).path for config in configs}) == 5
    same = ("coord.lr=1e-4", "done.patience=9", "train.strategy=independent", "model.cell=8")
    assert {kept_of(small(*PHOTO, *VIEWS, own)).path for own in same} == {kept_of(configs[0]).path}


def test_computing_goes_on_where_it_was_ended(small: Callable, looks: list[int]) -> None:
    config = small(*PHOTO, *VIEWS)
    kept, whole = kept_of(config), small(*PHOTO, *VIEWS, f"run.storage={config.run.storage}-2")
    steps: list[tuple[int, int]] = []
    make_here(config, kept, lambda done, total: steps.append((done, total)), lambda: len(steps) > 1)
    done = sum(looks)
    assert 0 < done < 48 * 3 + 21
    assert sum(len(unit.rows) for unit in missing(config, kept)) == 48 * 3 + 21 - done
    files = {file: file.stat().st_mtime_ns for file in Path(kept.path).iterdir()}
    make_here(config, kept)
    assert missing(config, kept) == []
    assert sum(looks) == 48 * 3 + 21
    assert all(file.stat().st_mtime_ns == before for file, before in files.items())

    make_here(whole, kept_of(whole))
    for file in Path(kept.path).iterdir():
        assert file.read_bytes() == (Path(kept_of(whole).path) / file.name).read_bytes()


def test_a_pool_of_actors_computes_the_same(cluster: None, small: Callable) -> None:
    config = small(*PHOTO, *VIEWS)
    pooled = small(*PHOTO, *VIEWS, f"run.storage={config.run.storage}-2")
    make_here(config, kept_of(config))
    steps: list[tuple[int, int]] = []
    kept = kept_of(pooled)
    make_on_ray(pooled, kept, lambda done, total: steps.append((done, total)), lambda: False)
    assert (steps[0], steps[-1]) == ((0, 165), (165, 165))
    encoder = DualTaskCounter.from_config(config).prompter
    here = BatchStream(config, encoder, load_here, kept=kept_of(config))
    there = BatchStream(pooled, encoder, load_with_ray, kept=kept)
    batches = zip(here.train(1), there.train(1), strict=True)
    for (one,), (other,) in batches:
        assert one["coord"].inputs.keys() == other["coord"].inputs.keys()
        for name, value in one["coord"].inputs.items():
            torch.testing.assert_close(value, other["coord"].inputs[name], rtol=1e-2, atol=1e-2)


def test_views_differ_and_the_first_is_the_image_as_it_is(small: Callable) -> None:
    config = small(*PHOTO, *VIEWS, "train.max_iterations=null")
    kept = kept_of(config)
    make_here(config, kept)
    encoder = DualTaskCounter.from_config(config).prompter
    stream = BatchStream(config, encoder, load_here, kept=kept)
    assert stream.train_rows == 48 * 3
    by_row: dict[str, dict[int, np.ndarray]] = {}
    for micro in stream.train(1):
        for sample in micro[0]["coord"].samples:
            assert sample.features is not None
            by_row.setdefault(sample.id, {})[sample.view] = sample.features
    assert all(set(views) == {0, 1, 2} for views in by_row.values())
    assert all((v[0] != v[1]).any() and (v[1] != v[2]).any() for v in by_row.values())
    plain = {s.id: s for s in load_here(*_all_rows(config))}
    maker = FeatureMaker(config, kept)
    for row in list(by_row)[:3]:
        (seen,) = maker._looked_at([plain[row]])
        assert seen.features is not None
        np.testing.assert_allclose(seen.features, by_row[row][0], rtol=1e-2, atol=1e-2)


def _all_rows(config: Config) -> tuple:
    from raydual.data.batches import read_splits
    from raydual.data.loading import Preparation

    return read_splits(config)[0], Preparation(config.data.image_size, config.data.order)


def test_few_images_are_gone_over_until_an_epoch_is_long_enough(small: Callable) -> None:
    config = small("train.max_iterations=null", "train.min_iterations=30", "train.epochs=1")
    encoder = DualTaskCounter.from_config(config).prompter
    stream = BatchStream(config, encoder, load_here)
    assert (stream.train_rows, stream.iterations) == (48 * 3, 36)
    seen = [s for micro in stream.train(1) for s in micro[0]["done"].samples]
    assert len({(s.id, s.view) for s in seen}) == len(seen) == 48 * 3


def test_a_validation_asks_about_an_image_with_several_choices_of_marks(small: Callable) -> None:
    config = small("train.val_marks=3")
    encoder = DualTaskCounter.from_config(config).prompter
    batches = list(BatchStream(config, encoder, load_here).val())
    samples = [s for b in batches for s in b["coord"].samples]
    assert len(samples) == 21 * 3
    numbers: dict[str, set[int]] = {}
    for batch in batches:
        for sample, number in zip(batch["coord"].samples, batch["coord"].num_marked, strict=True):
            numbers.setdefault(sample.id, set()).add(number)
    assert max(map(len, numbers.values())) > 1


def test_weights_are_the_same_after_a_training_that_was_interrupted(small: Callable) -> None:
    """In the middle of the features, then in the middle of an epoch."""
    from raydual.training.launch import launch, resumed
    from tests.training.test_resume import interrupt_at

    own = (*PHOTO, *VIEWS, "train.max_iterations=8", "train.checkpoint_every=3", "train.epochs=1")
    whole, parts = small(*own, "run.name=whole"), small(*own, "run.name=parts")
    whole_apart = small(*own, "run.name=whole", f"run.storage={whole.run.storage}-2")
    run(whole_apart)
    with pytest.raises(KeyboardInterrupt):
        launch(parts, interrupt_at("Features", 21))
    with pytest.raises(KeyboardInterrupt):
        launch(parts, interrupt_at("Epoch 1", 5))
    launch(resumed(f"{parts.run.storage}/parts", None, []), lambda event: None)
    assert history(whole_apart) == history(parts)
    one, other = (weights(c, "latest_checkpoint") for c in (whole_apart, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "type", "shape", "rows"])
def test_a_damaged_file_is_one_line_that_names_it(small: Callable, damage: str) -> None:
    config = small(*PHOTO, "data.views=1")
    kept = kept_of(config)
    make_here(config, kept)
    for file in sorted(Path(kept.path).glob("train-*")):
        if damage == "gone":
            file.unlink()
        elif damage in ("cut", "empty"):
            file.write_bytes(file.read_bytes()[:100] if damage == "cut" else b"")
        else:
            table = pq.read_table(file)
            layout = {"type": '["nothing", [4]]', "shape": '["float16", [4]]'}.get(damage)
            if layout:
                table = table.replace_schema_metadata({"raydual.features": layout})
            pq.write_table(table if layout else table.slice(40), file)
    encoder = DualTaskCounter.from_config(config).prompter
    with pytest.raises(DataError, match=r"kept features .*cannot be read: .*computed anew"):
        list(BatchStream(config, encoder, load_here, kept=kept).train(1))


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (("model.freeze_tower=false",), "needs a frozen tower"),
        (("data.mark.style=dots",), "needs marks that are not painted"),
        (("data.augment=false",), "the first view is the image as it is"),
        (("data.views=1",), "the first view is the image as it is"),
        (("scale.strategy=fsdp", "scale.num_workers=2"), "does not work with scale.strategy=fsdp"),
        (("model.coord_head=mlp",), "coord.match=all needs a head with a grid"),
    ],
)
def test_views_that_cannot_be_kept_are_refused(
    small: Callable, own: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        small(*PHOTO, *VIEWS, *own)


def test_a_folder_that_takes_no_features_is_one_line(small: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = small(*PHOTO, *VIEWS, f"data.features={tmp_path / 'file'}")
    with pytest.raises(StorageError, match=r"cannot write features into .*data\.features"):
        make_here(config, kept_of(config))


def test_a_tower_shown_images_otherwise_has_features_of_its_own(
    small: Callable, tmp_path: Path
) -> None:
    family = FAMILIES[0]
    trunk = write_checkpoint(family, tmp_path / "trunk")
    own = (f"model.trunk={trunk}", f"data.image_size={family.image_size}")
    config = small(*own, "data.mark.style=embedding", "model.lora.r=4", "data.views=1")
    before = kept_of(config).path
    assert kept_of(config).path == before
    file = trunk / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    assert kept_of(config).path != before


def test_a_run_does_not_go_on_with_another_tower(small: Callable, tmp_path: Path) -> None:
    family = FAMILIES[0]
    trunk = write_checkpoint(family, tmp_path / "trunk")
    own = (f"model.trunk={trunk}", f"data.image_size={family.image_size}")
    own += ("data.mark.style=embedding", "model.freeze_tower=true", "data.views=1")
    config = small(*own, "train.epochs=1")
    run(config)
    weights_file = next(trunk.glob("*.safetensors"))
    changed = {name: tensor + 1 for name, tensor in load_file(weights_file).items()}
    save_file(changed, weights_file, {"format": "pt"})
    again = resumed(f"{config.run.storage}/r", None, ["train.epochs=2"])
    with pytest.raises(CheckpointError, match="give the trunk that the run began with"):
        launch(again, lambda event: None)


def test_adapters_do_not_go_beside_an_untrained_pyramid(small: Callable) -> None:
    config = small(*PHOTO, "model.lora.r=4", "model.freeze_tower=false")
    with pytest.raises(ConfigError, match=r"model.lora.r=4 would leave .* untrained"):
        DualTaskCounter.from_config(config)


def test_marks_of_another_style_are_refused_at_resume(small: Callable) -> None:
    config = small("train.epochs=1")
    run(config)
    again = resumed(f"{config.run.storage}/r", None, ["data.mark.style=embedding"])
    with pytest.raises(ConfigError, match=r"data.mark.style=embedding cannot go on"):
        launch(again, lambda event: None)


def test_a_tower_that_is_trained_has_rates_of_its_own(small: Callable) -> None:
    from raydual.training.run import start

    own = (*PHOTO[:-2], "model.freeze_tower=false", "model.lora.r=0", "model.tower_lr_factor=0.1")
    config = small(*own, "coord.lr=1e-2", "done.lr=1e-3", "coord.warmup=0", "done.warmup=0")
    counter = DualTaskCounter.from_config(config)
    stream = BatchStream(config, counter.prompter, load_here)
    _, state = start(config, counter, stream, torch.device("cpu"))
    tower = {id(p) for p in counter.trunks["shared"].tower_parameters()}
    for name, rate in (("coord", 1e-2), ("done", 1e-3)):
        optimizer = state.optimizers[name]
        optimizer.step()
        groups = optimizer.optimizer.param_groups
        rates = {id(p): group["lr"] for group in groups for p in group["params"]}
        own = {lr for p, lr in rates.items() if p in tower}
        others = {lr for p, lr in rates.items() if p not in tower}
        assert list(own) == [pytest.approx(rate / 10)]
        assert list(others) == [pytest.approx(rate)]
