"""Where a trunk comes from: the tiny one of this package, a folder, or the Hugging Face hub."""

import contextlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers.utils import logging as transformers_logging

from raydual.errors import ConfigError, RaydualError
from raydual.model.files import refuse_special
from raydual.model.pretrained import check_installed

TINY = "tiny"
TINY_FOLDER = Path(__file__).parent / "tiny"
PHOTO = "photo"
PHOTO_FOLDER = Path(__file__).parent / "photo"
OWN = {TINY: TINY_FOLDER, PHOTO: PHOTO_FOLDER}
"""Trunks of this package: folders with everything but weights."""

MOST_LAYERS = 1000
_LAYERS = re.compile("layers|depth")
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_HUB_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.py", "*.safetensors")


def resolve(name_or_path: str) -> str:
    """Turn `model.trunk` into a folder; what a hub id names is downloaded once, and kept.

    Raises:
        ConfigError: there is no such folder, its model would take forever to make, the hub or the
            id cannot be reached, or the weights of `photo` are not installed.
        CheckpointError: a pipe or a device is in the folder.
    """
    found = locate(name_or_path)
    if name_or_path == PHOTO:
        check_installed()
    if Path(found).is_dir():
        return found
    advice = f"Give `{TINY}`, `{PHOTO}`, a folder, or an id of the hub while it can be reached."
    with one_line_errors(f"model.trunk {name_or_path!r}", ConfigError, advice):
        return str(snapshot_download(name_or_path, allow_patterns=list(_HUB_FILES)))


def locate(name_or_path: str) -> str:
    """Return the folder that `model.trunk` names, or the hub id, which has not been looked up.

    `tiny` and `photo` are folders inside this package. Whatever looks like a path (a leading `.`,
    `/` or `~`, more than one slash, a first part that is a folder here) is never taken for a hub
    id.

    Raises:
        ConfigError: it looks like a path and there is no such folder.
    """
    if name_or_path in OWN:
        return str(OWN[name_or_path])
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        refuse_special(path)
        _refuse_endless(path)
        return str(path)
    inside_a_folder = "/" in name_or_path and Path(path.parts[0]).is_dir()
    if inside_a_folder or not _HUB_ID.fullmatch(name_or_path):
        raise ConfigError(
            f"model.trunk: there is no folder {name_or_path!r}; give `{TINY}`, `{PHOTO}`, a hub id "
            "such as Qwen/Qwen2-VL-2B-Instruct, or a folder that holds config.json and the weights."
        )
    return name_or_path


def _refuse_endless(folder: Path) -> None:
    """Refuse a model of so many layers that to list them alone would take hours."""
    for file in (*folder.glob("config.json"), *folder.glob("*/config.json")):
        try:
            waiting = [json.loads(file.read_text())]
        except (OSError, ValueError, RecursionError):
            continue  # whoever loads it will say so
        while waiting:
            about = waiting.pop()
            for key, value in about.items() if isinstance(about, dict) else ():
                numbers = value if isinstance(value, list) else [value]
                most = max((n for n in numbers if isinstance(n, int)), default=0)
                if _LAYERS.search(key) and most > MOST_LAYERS:
                    raise ConfigError(f"{file}: {key} is {most}, expected {MOST_LAYERS} at most")
                waiting.append(value)


@contextlib.contextmanager
def one_line_errors(what: str, error: type[RaydualError], advice: str) -> Iterator[None]:
    """Turn what Hugging Face's loaders raise into one line: `what`, the cause, `advice`.

    Raises:
        error: anything in the block could not be read.
    """
    try:
        yield
    except RaydualError:
        raise
    except Exception as cause:  # they raise whatever the files make them raise
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        reason = lines[0] if lines else type(cause).__name__
        if "trust_remote_code" in str(cause):
            reason = "it comes with Python, which runs only with model.trust_remote_code=true"
        raise error(f"{what} cannot be loaded: {reason.rstrip('.')}. {advice}") from cause


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars, load reports and deprecations of transformers inside the block."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
