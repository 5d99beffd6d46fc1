"""Optuna's study of a search: it proposes what to try, and remembers what came of it.

Asked and told directly, not through Ray's OptunaSearch: so all four searchers are one path, the
study in sqlite is the searcher's only memory, and an interrupted trial is told when it has ended.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from raydual.tuning.results import OBJECTIVES
from raydual.tuning.space import Search


class Study:
    """One search's study, in a sqlite file that `optuna-dashboard` can open while it runs.

    on_change: called when the file has changed.
    """

    def __init__(
        self,
        search: Search,
        seed: int,
        file: str,
        name: str,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = {k: domain.distribution() for k, domain in search.sampled.items()}
        storage = RDBStorage(f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}})
        with warnings.catch_warnings():  # some of what is used here is marked experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=["minimize"] * len(OBJECTIVES),
                load_if_exists=True,
            )
            self._study.set_metric_names(list(OBJECTIVES))
            # a resumed search must not draw once more what it has drawn
            fresh = np.random.SeedSequence((seed, len(self._study.trials)))
            self._study.sampler = _sampler(search, int(fresh.generate_state(1)[0]))
        if search.searcher == "grid" and not self._study.trials:
            for values in itertools.product(*map(_values, self._space.values())):
                self._study.enqueue_trial(dict(zip(self._space, values, strict=True)))

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Return the number of a new trial, and a value for each sampled key."""
        trial = self._study.ask(self._space)
        self._on_change()
        return trial.number, dict(trial.params)

    def tell(self, number: int, metrics: Mapping[str, float]) -> None:
        """Say what a trial gave: all of OBJECTIVES, or it has failed."""
        values = [metrics[name] for name in OBJECTIVES if name in metrics]
        complete = len(values) == len(OBJECTIVES)
        self._study.tell(
            number,
            values if complete else None,
            state=TrialState.COMPLETE if complete else TrialState.FAIL,
            skip_if_finished=True,
        )
        self._on_change()


def _sampler(search: Search, seed: int) -> BaseSampler:
    if search.searcher == "nsga2":
        return NSGAIISampler(seed=seed, population_size=max(4, min(50, search.trials // 2)))
    if search.searcher == "optuna":
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)
    return RandomSampler(seed=seed)


def _values(distribution: BaseDistribution) -> list[Any]:
    """Return every value of a distribution on a grid."""
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1))
    assert isinstance(distribution, CategoricalDistribution)
    return list(distribution.choices)
