"""Read a search file, and find what cannot be searched so before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raydual.config import keys, load, read_yaml, unknown, value_of, with_values
from raydual.config_tree import Config
from raydual.errors import ConfigError
from raydual.tasks import TASKS
from raydual.training.launch import with_absolute_paths
from raydual.tuning.space import PATIENCES, Domain, Search, build_search, most_epochs, split_key

FIXED = ("run.", "log.", "scale.", "data.path", "model.trust_remote_code")
"""What begins so is of the search as a whole: trials do not differ in it, so that their losses
are on the same images, and their costs on the same workers."""

REPORTED = ("cost", *(name for task in TASKS for name in (task.monitor, task.best)))
"""What a trial reports after each epoch, beside the epoch itself."""


def load_search(file: str | Path, overrides: Sequence[str] = ()) -> tuple[Search, Config]:
    """Read a search file and the configuration it starts from.

    overrides: `key=value`; keys of the search file, or of the configuration.

    Raises:
        ConfigError: a wrong key or value of either, or a space that cannot be searched so.
    """
    sections = [*Search.model_fields, *dict.fromkeys(key.split(".")[0] for key in keys())]
    for key in (override.partition("=")[0] for override in overrides):
        if key.split(".")[0] not in sections:
            raise ConfigError(unknown(key, [*Search.model_fields, *keys()]))
    own = [o for o in overrides if o.partition("=")[0].split(".")[0] in Search.model_fields]
    search = build_search(read_yaml(file), own)
    base = search.base
    path = Path(file).parent / base.config if base.config else None
    config = with_values(load(path, preset=base.preset), base.overrides)
    config = load(None, [o for o in overrides if o not in own], base=config.to_yaml())
    return check_space(search, config), config


def check_space(search: Search, config: Config) -> Search:
    """Try every kind of value on the configuration, and what does not go together.

    Returns the search with its choices as the configuration reads them: 1e-3, which is text in
    YAML, as a number; a trunk's folder by its absolute path.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    if not search.space:
        raise ConfigError("space: it is empty; name at least one key, as coord.lr")
    if not isinstance(config.scale.num_workers, int):
        raise ConfigError(
            f"scale.num_workers={list(config.scale.num_workers)}: trials are compared, so that "
            "each takes as many workers; give one number"
        )
    space = {key: _as_read(key, domain, config) for key, domain in search.space.items()}
    search = search.model_copy(update={"space": space})
    _check_replay(search)
    if search.searcher == "grid":
        for key, domain in search.sampled.items():
            if domain.values is None:
                raise ConfigError(f"space.{key}: a grid needs a choice or a randint, not a range")
        if search.num_samples is not None:
            raise ConfigError(f"num_samples: a grid has {search.trials} trials; leave it out")
    metric = search.halving.metric
    if search.trial_scheduler == "asha":
        if metric is None:
            raise ConfigError(f"halving.metric: asha needs one of {', '.join(REPORTED)}")
        if metric not in REPORTED:
            raise ConfigError(f"halving.metric: {unknown(metric, REPORTED)} are reported")
    elif metric is not None:
        raise ConfigError(
            f"halving.metric: {search.trial_scheduler} takes none; only trial_scheduler=asha does"
        )
    epochs = most_epochs(search, config)
    if search.trial_scheduler.startswith("asha") and search.halving.grace_epochs >= epochs:
        raise ConfigError(
            f"halving.grace_epochs: got {search.halving.grace_epochs}; trials have {epochs} "
            "epochs, and none would ever be stopped"
        )
    _check_population(search, config)
    return search


def _as_read(key: str, domain: Domain, config: Config) -> Domain:
    """Return a domain whose choices are as the configuration reads them."""
    parts = split_key(key)
    for part in parts:
        if part.startswith(FIXED):
            raise ConfigError(f"space: {part} is the same for all trials; put it into base")
    read = []
    for value in domain.samples():
        values = value if len(parts) > 1 else [value]
        if not isinstance(values, list) or len(values) != len(parts):
            raise ConfigError(
                f"space.{key}: got {value!r}; {len(parts)} joint keys take a choice of "
                f"lists of {len(parts)}"
            )
        one = with_absolute_paths(with_values(config, dict(zip(parts, values, strict=True))))
        read.append([value_of(one, part) for part in parts])
    if domain.choice is None:
        return domain
    choice = read if len(parts) > 1 else [values[0] for values in read]
    return domain.model_copy(update={"choice": choice})


def _check_replay(search: Search) -> None:
    for key in PATIENCES.values():
        if search.patience == "replay" and key in search.space and not search.replayed[key]:
            raise ConfigError(
                f"space.{key}: patience is read off the history for values that can be listed; "
                "give a choice or a randint"
            )
    for key in search.sampled if search.patience == "replay" else ():
        if "," in key and set(split_key(key)) & set(PATIENCES.values()):
            raise ConfigError(
                f"space.{key}: patience is read off the history of every trial, whatever its "
                "other values; name it apart, or set patience=sample"
            )
    if not search.sampled:
        search_for = ", ".join(search.space)
        raise ConfigError(
            f"space: {search_for} alone need one training, not a search; add a key, as coord.lr, "
            "or set patience=sample"
        )


def _check_population(search: Search, config: Config) -> None:
    if search.trial_scheduler != "pbt":
        return
    if config.scale.max_workers > 1:
        raise ConfigError(
            f"trial_scheduler=pbt copies the state of one process, but scale.num_workers="
            f"{config.scale.max_workers}; set it to 1, or take asha-all"
        )
    wrong = [key for key in search.sampled if key not in mutable()]
    if wrong:
        raise ConfigError(
            f"space.{wrong[0]}: pbt changes {' and '.join(mutable())} while trials run, nothing "
            "else; put other keys into base"
        )
    if search.concurrency is not None:
        raise ConfigError("concurrency: the trials of pbt take turns; leave it out")
    if search.trials < 2:
        raise ConfigError(f"num_samples: got {search.trials}; a population has at least 2 trials")


def mutable() -> list[str]:
    """Return the keys that can change in the middle of a training: each task's learning rate."""
    return [f"{task.name}.lr" for task in TASKS]
