from pathlib import Path

import pytest

from raydual.config import keys, load, presets
from raydual.config_tree import Config
from raydual.errors import ConfigError


@pytest.mark.parametrize("preset", presets())
def test_every_preset_loads_and_round_trips(preset: str, tmp_path: Path) -> None:
    config = load(preset=preset)
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert load(file, preset="tiny") == config
    assert config.model.coord_head == "pointing"


def test_there_are_presets() -> None:
    assert {"tiny", "qwen2-vl-2b"} <= set(presets())


def test_defaults_that_users_rely_on() -> None:
    config = Config()
    assert (config.coord.lr, config.done.lr) == (5e-5, 5e-5)
    assert (config.coord.patience, config.done.patience) == (5, 5)
    assert (config.coord.clip_norm, config.done.clip_norm) == (1.0, 1.0)
    assert (config.train.batch_size, config.train.strategy, config.train.stop) == (2, "dual", "all")
    lora = config.model.lora
    assert (lora.r, lora.alpha, lora.dropout) == (16, 32, 0.05)


def test_overrides_win_over_file_over_preset(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("coord: {lr: 1e-5, patience: 7}\n")
    config = load(file, ["coord.patience=9"])
    assert config.coord.lr == 1e-5
    assert config.coord.patience == 9
    assert config.data.image_size == load().data.image_size


def test_sections_merge_and_empty_ones_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("coord:\ndone:\n  lr: 1e-3\n")
    config = load(file, ["coord={patience: 9}"])
    assert config.coord.patience == 9
    assert config.coord.lr == load().coord.lr
    assert config.done.warmup == load().done.warmup


@pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "0.00001", "'1e-5'"])
def test_numbers_as_people_write_them(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"done: {{lr: {text}}}\n")
    assert load(file).done.lr == 1e-5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("coord.learning_rate=1", ["coord.learning_rate", "coord.lr"]),
        ("cord.lr=1", ["cord.lr", "coord.lr"]),
        ("patience=3", ["patience", "coord.patience", "done.patience"]),
        ("coord.lr.x=1", ["coord.lr.x"]),
        ("coord.lr=fast", ["coord.lr", "fast", "number"]),
        ("coord.lr=-1", ["coord.lr", "-1", "greater than 0"]),
        ("coord.lr=.nan", ["coord.lr", "finite"]),
        ("coord.lr=true", ["coord.lr", "number"]),
        ("train.epochs=2.5", ["train.epochs", "2.5", "integer"]),
        ("train.strategy=both", ["train.strategy", "both", "dual"]),
        ("coord=5", ["coord", "5"]),
        ("run.name=../x", ["run.name"]),
        ("epochs", ["epochs", "key=value"]),
        ("seed=99999999999999999999", ["seed"]),
        ("model.lora.r=999999999", ["model.lora.r"]),
        ("coord.lr=[", ["coord.lr"]),
    ],
)
def test_bad_overrides_are_one_line_with_the_key(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, [override])
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "text", ["- a\n", "a: [", "3: {lr: 1}\n", "coord: {lr: {x: 1}}\n", "coord: &a {x: *a}\n"]
)
def test_bad_files_are_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert "\n" not in str(error.value)


def test_missing_file_and_preset() -> None:
    with pytest.raises(ConfigError, match="no-such"):
        load("no-such.yaml")
    with pytest.raises(ConfigError, match="tiny"):
        load(preset="huge")


def test_every_key_is_described_or_self_evident() -> None:
    assert "coord.lr" in set(keys())
    assert "data.mark.alpha" in set(keys())
    assert "model.lora.r" in set(keys())
