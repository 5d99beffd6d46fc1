"""No secret is written down: paths that hold one are refused, the environment stays where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydual.config import load, with_values
from raydual.credentials import has_credentials
from raydual.data.storage import open_filesystem
from raydual.errors import ConfigError, DataError
from raydual.training.launch import launch
from raydual.training.loop import EpochResult

SECRET = "wJalrXUtnFEMIK7MDENG"
LEAKS = [
    f"s3://AKIA:{SECRET}@bucket/runs",
    f"s3://AKIA:{SECRET}/and/more@bucket/runs",
    f"s3://AKIA:{SECRET}%2Fand%2Fmore@bucket/runs",
    f"s3://AKIA:{SECRET}%3Fand%23more@bucket/runs",
    f"s3://AKIA%3A{SECRET}%40bucket@bucket/runs",
    f"s3://bucket/runs?region=eu-west-1&secret_key={SECRET}",
    f"s3://bucket/runs?access_key=AKIA;SessionToken={SECRET}",
    f"s3://bucket/runs?endpoint_override=https%3A%2F%2Fminio%3A{SECRET}%40host",
    f"abfs://container@account.dfs.core.windows.net/runs?sig={SECRET}",
    f"https://user:{SECRET}@host/model",
]
CLEAN = [
    "s3://bucket/runs?region=eu-west-1&endpoint_override=host:9000",
    "gs://anonymous@bucket/runs",
    "abfs://container@account.dfs.core.windows.net/runs?blob_storage_authority=host:1",
    "runs/key=3?secret=no:uri@all",
]


@pytest.mark.parametrize("uri", LEAKS)
def test_a_path_with_credentials_is_refused_and_not_repeated(uri: str) -> None:
    errors = []
    for key in ("run.storage", "data.path", "model.trunk"):
        with pytest.raises(ConfigError, match=f"{key} holds credentials") as caught:
            load(None, [f"{key}={uri}"])
        errors.append(caught.value)
        with pytest.raises(ConfigError) as caught:
            with_values(load(), {key: uri})
        errors.append(caught.value)
    with pytest.raises(DataError, match="credentials") as refused:
        open_filesystem(uri)
    assert not any(SECRET in str(error) for error in (*errors, refused.value))


@pytest.mark.parametrize("path", CLEAN)
def test_other_paths_are_not(path: str) -> None:
    assert not has_credentials(path)


def test_nothing_of_the_environment_is_written_down(
    small: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    for name in ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "RAYDUAL_PASSWORD"):
        monkeypatch.setenv(name, SECRET * 2)  # 40 characters, as a key of W&B has
    events: list = []
    launch(small("log.wandb=offline", "train.epochs=1", "train.max_iterations=1"), events.append)
    assert any(isinstance(event, EpochResult) for event in events)
    assert not any("Weights & Biases is off" in str(event) for event in events)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert any(path.name == "config.yaml" for path in written)
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err + str(events)
