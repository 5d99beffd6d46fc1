"""A search file: what is searched, by which searcher, within which limits.

The keys of a search space are the dotted paths of the configuration. Several keys that belong
together are written with commas, and their choices are lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, ValidationError, model_validator

from raydual.config import MOST_VALUES, first_error, keys, parse_value, shown, unknown
from raydual.config_tree import AtLeastOne, Config, NonNegative, Positive, Section
from raydual.errors import ConfigError
from raydual.tasks import TASKS

EPOCHS = "train.epochs"
PATIENCES = {task.name: f"{task.name}.patience" for task in TASKS}
Value = bool | int | float | str | None
Range = Annotated[list[float], Field(min_length=2, max_length=2)]
IntRange = Annotated[list[int], Field(min_length=2, max_length=2)]


class Domain(Section):
    """The values one key can take: exactly one of the four."""

    choice: Annotated[list[Value | list[Value]], Field(min_length=1)] | None = None
    uniform: Range | None = None
    loguniform: Range | None = None
    randint: IntRange | None = Field(None, description="both ends included")

    @model_validator(mode="after")
    def _check(self) -> Domain:
        given = self.model_fields_set
        if len(given) != 1:
            raise ValueError("give one of choice, uniform, loguniform, randint")
        ends = self.ends
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError(f"the range {list(ends)} is empty; its first end has to be smaller")
        if self.randint is not None and self.randint[1] - self.randint[0] >= MOST_VALUES:
            raise ValueError(f"randint has more than {MOST_VALUES:,} values; give a shorter range")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError("the ends of a loguniform range have to be above 0")
        return self

    @property
    def ends(self) -> tuple[float, float] | None:
        """The two ends of a range; None for choices."""
        ends = self.uniform or self.loguniform or self.randint
        return (ends[0], ends[1]) if ends else None

    @property
    def values(self) -> list[Any] | None:
        """All values where they can be listed: choices and whole numbers."""
        if self.randint is not None:
            return list(range(self.randint[0], self.randint[1] + 1))
        return self.choice

    def samples(self) -> list[Any]:
        """Values that show whether the configuration takes the domain: all, or ends and middle."""
        if self.ends is None:
            return list(self.values or [])
        low, high = self.ends
        inner = [] if self.randint else [low + (high - low) / math.e]
        return [low, high, *inner]

    def distribution(self) -> BaseDistribution:
        """Return Optuna's form of it; the choices of joint keys by their number."""
        if self.choice is not None:
            single = [value for value in self.choice if not isinstance(value, list)]
            joint = len(single) < len(self.choice)
            return CategoricalDistribution(range(len(self.choice)) if joint else single)
        if self.randint is not None:
            return IntDistribution(self.randint[0], self.randint[1])
        low, high = self.ends or (0.0, 1.0)
        return FloatDistribution(low, high, log=self.loguniform is not None)


class Base(Section):
    """The configuration that trials start from."""

    preset: str = "tiny"
    config: str | None = Field(None, description="YAML file over the preset")
    overrides: dict[str, Any] = Field({}, description="dotted key: value")


class Resources(Section):
    """What the process of a trial takes; of a trial with several workers, each worker."""

    cpu: Positive | None = Field(None, description="scale.cpus_per_worker when not given")
    gpu: NonNegative | None = Field(None, description="may be a fraction, for one-worker trials")


class Halving(Section):
    """Asynchronous successive halving (Li et al., MLSys 2020)."""

    grace_epochs: AtLeastOne = Field(1, description="no trial is stopped before")
    reduction_factor: Annotated[float, Field(gt=1)] = Field(3, description="one in so many goes on")
    metric: str | None = Field(None, description="of the plain asha: one metric, smaller is better")


class Population(Section):
    """Population based training (Jaderberg et al., 2017)."""

    interval_epochs: AtLeastOne = Field(1, description="epochs between two exchanges")


class Search(Section):
    """The whole search file."""

    base: Base = Base()
    space: dict[str, Domain]
    searcher: Literal["optuna", "nsga2", "random", "grid"] = "optuna"
    trial_scheduler: Literal["none", "asha-all", "asha-any", "asha", "pbt"] = "none"
    num_samples: AtLeastOne | None = Field(None, description="trials; 16 if not given")
    concurrency: AtLeastOne | None = Field(None, description="trials at a time; as many as fit")
    resources: Resources = Resources()
    patience: Literal["replay", "sample"] = "replay"
    keep: Literal["front", "all"] = Field("front", description="whose checkpoints are kept")
    halving: Halving = Halving()
    pbt: Population = Population()

    @property
    def replayed(self) -> dict[str, list[int]]:
        """The patience values to be read off each trial's history, by key."""
        if self.patience == "sample":
            return {}
        found = {key: self.space[key].values for key in PATIENCES.values() if key in self.space}
        return {key: sorted(set(map(int, values or []))) for key, values in found.items()}

    @property
    def sampled(self) -> dict[str, Domain]:
        """What the searcher chooses for a trial."""
        return {k: domain for k, domain in self.space.items() if k not in self.replayed}

    @property
    def trials(self) -> int:
        """How many trials there are to be."""
        if self.searcher == "grid":
            return math.prod(len(domain.values or []) for domain in self.sampled.values())
        return self.num_samples or 16

    def settings(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration's values for what Optuna drew; replayed patiences largest."""
        values: dict[str, Any] = {}
        for key, domain in self.sampled.items():
            value = drawn[key]
            if "," in key:
                values |= zip(split_key(key), (domain.choice or [])[value], strict=True)
            else:
                values[key] = value
        return values | {key: max(options) for key, options in self.replayed.items()}


def split_key(key: str) -> list[str]:
    """Return the configuration keys of a key of the space: one, or several that are joint."""
    return [part.strip() for part in key.split(",")]


def most_epochs(search: Search, config: Config) -> int:
    """Return the most epochs that a trial can have."""
    for key, domain in search.space.items():
        parts = split_key(key)
        if EPOCHS in parts:
            place = parts.index(EPOCHS)
            return int(max(v[place] if len(parts) > 1 else v for v in domain.samples()))
    return config.train.epochs


def build_search(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> Search:
    """Validate the content of a search file, `key=value` strings applied to it.

    Raises:
        ConfigError: the first key or value that is wrong.
    """
    tree = {key: dict(v) if isinstance(v, Mapping) else v for key, v in tree.items()}
    for override in overrides:
        key, _, text = override.partition("=")
        section, _, rest = key.partition(".")
        if not rest:
            tree[section] = parse_value(text, key)
        elif isinstance(tree.setdefault(section, {}), dict):
            tree[section][rest] = parse_value(text, key)
    for key in tree:
        if key not in Search.model_fields:
            raise ConfigError(unknown(str(key), list(Search.model_fields)))
    space = tree.get("space")
    if space is not None and not isinstance(space, dict):
        raise ConfigError(f"space: got {shown(space)}; a mapping of keys to domains is expected")
    parts = [part for key in space or {} for part in split_key(str(key))]
    for part in parts:
        if part not in keys():
            raise ConfigError(f"space: {unknown(part)}")
        if parts.count(part) > 1:
            raise ConfigError(f"space: {part} is there twice; name it once, alone or among others")
    try:
        return Search.model_validate(tree)
    except ValidationError as error:
        raise first_error(error) from None
