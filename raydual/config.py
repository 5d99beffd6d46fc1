"""Read the configuration: a preset, then a YAML file, then `key=value` overrides.

The dotted path of a field (`coord.lr`) is its name everywhere: in YAML files, on the command
line, in search spaces and in error messages. The fields themselves are in `config_tree.py`.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from raydual.config_tree import Config
from raydual.credentials import ADVICE, has_credentials
from raydual.errors import ConfigError

DEFAULT_PRESET = "tiny"
MOST_VALUES = 100_000
PATHS = ("run.storage", "data.path", "data.features", "model.trunk")
"""The keys that may hold a URI."""

_NO_YAML = (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError)
"""What PyYAML raises of a text that is none, of a day that does not exist, and the like."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def presets() -> list[str]:
    """Return the names of the presets that ship with the package."""
    folder = resources.files("raydual") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load(
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    preset: str = DEFAULT_PRESET,
    base: str | None = None,
) -> Config:
    """Build the configuration from a preset, a YAML file and `key=value` strings, in that order.

    base: YAML text to start from in the place of the preset.

    Raises:
        ConfigError: an unknown preset or key, a wrong type or value, a file that is no YAML
            mapping; the message names the key.
    """
    if preset not in presets():
        raise ConfigError(f"no preset {preset!r}; there are: {', '.join(presets())}")
    if base is None:
        text = (resources.files("raydual") / "presets" / f"{preset}.yaml").read_text()
        tree = parse(text, preset)
    else:
        tree = parse(base, "the configuration")
    if file is not None:
        _merge(tree, read_yaml(file))
    for override in overrides:
        key, sep, value = override.partition("=")
        if not sep or not key:
            raise ConfigError(
                f"got {override!r}; an override is written key=value, as coord.lr=1e-4"
            )
        if not _known(key):
            raise ConfigError(unknown(key))
        _merge(tree, _nested(key, parse_value(value, key)))
    return build(tree)


def build(tree: Mapping[str, Any]) -> Config:
    """Validate a nested mapping.

    Raises:
        ConfigError: the first unknown key, else the first wrong value, by its dotted path; or a
            path with credentials in it.
    """
    for key in _paths(tree):
        if not _known(key):
            raise ConfigError(unknown(key))
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise first_error(error) from None
    for key in PATHS:
        if has_credentials(value_of(config, key) or ""):
            raise ConfigError(f"{key} {ADVICE}")
    return config


def first_error(error: ValidationError) -> ConfigError:
    """Return the first thing that pydantic found wrong, as one line with its dotted path."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    got = "" if isinstance(first["input"], Mapping) else f" got {shown(first['input'])};"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return ConfigError(message)  # of several keys, which it names
    return ConfigError(f"{key}:{got} {message[0].lower()}{message[1:]}")


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: the file is missing, is no YAML, or holds something else.
    """
    try:
        return parse(Path(file).read_text(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}") from None


def keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every leaf of the tree."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a copy in which the fields at some dotted paths have other values.

    Raises:
        ConfigError: as `build`.
    """
    tree = config.model_dump()
    for path, value in values.items():
        _merge(tree, _nested(path, value))
    return build(tree)


def value_of(config: Config, path: str) -> Any:
    """Return the value at a dotted path."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def parse(text: str, origin: str) -> dict[str, Any]:
    """Read YAML that holds a mapping, or nothing.

    Raises:
        ConfigError: it is no YAML, holds something else, or more than `MOST_VALUES` values.
    """
    try:
        tree = yaml.safe_load(text)
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deeply") from None
    except _NO_YAML as error:
        raise ConfigError(f"{origin} is no YAML: {' '.join(str(error).split())}") from None
    _refuse_many(tree, origin)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} holds a {type(tree).__name__}; a mapping of keys is expected")
    return tree


def parse_value(text: str, key: str) -> Any:
    """Read the value of a `key=value` string as YAML.

    Raises:
        ConfigError: it is none.
    """
    try:
        value = yaml.safe_load(text)
    except (RecursionError, *_NO_YAML):
        raise ConfigError(f"{key}: got {shown(text)}, which is no YAML value; quote it") from None
    _refuse_many(value, key)
    return value


def _refuse_many(tree: Any, origin: str) -> None:
    """Refuse what a few aliases make of a short text: a value counts wherever it is named."""
    waiting, seen = [tree], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise ConfigError(
                f"{origin} holds more than {MOST_VALUES:,} values, or one that contains itself"
            )
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value


def shown(value: Any) -> str:
    """A value as it looks in a message, at most some hundred characters."""
    if isinstance(value, int) and value.bit_length() > 400:
        return f"a number of {value.bit_length()} bits"
    return _SHORT.repr(value)


def _merge(tree: dict[str, Any], other: Mapping[Any, Any], prefix: str = "") -> None:
    for key, value in other.items():
        if not isinstance(key, str):
            raise ConfigError(f"{prefix}{key}: keys are text, got a {type(key).__name__}")
        if isinstance(value, Mapping):
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            _merge(tree[key], value, f"{prefix}{key}.")
        elif value is None and isinstance(tree.get(key), dict):
            continue  # a section that is named and left empty
        else:
            tree[key] = value


def _nested(path: str, value: Any) -> dict[str, Any]:
    """Return {"a": {"b": value}} for the path "a.b"."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def _paths(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{path}.")
        else:
            yield path


def _known(path: str) -> bool:
    return any(key == path or key.startswith(f"{path}.") for key in keys())


def unknown(path: str, known: Sequence[str] | None = None) -> str:
    """Say that a key is unknown, and which keys are near it."""
    known = list(keys()) if known is None else known
    leaf = path.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(path[:100], known, n=3, cutoff=0.6)
    near += [k for k in known if k.rsplit(".", 1)[-1] == leaf and k not in near]
    if not near:
        parent = path.rpartition(".")[0]
        near = [k for k in known if k.startswith(f"{parent}.")] if parent else []
    near = near or sorted({k.split(".")[0] for k in known})
    return f"unknown key {shown(path)}; near it: {', '.join(near)}"
