"""Trial schedulers that know two tasks: stop, or change, a trial without adding up its losses."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray.tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from raydual.tasks import TASKS
from raydual.tuning.replay import Epoch
from raydual.tuning.results import dominators
from raydual.tuning.space import Search

EPOCH = "epoch"


def make_scheduler(search: Search, epochs: int) -> TrialScheduler:
    """Return the trial scheduler that a search file names; epochs: the most a trial can have."""
    if search.trial_scheduler == "none":
        return FIFOScheduler()
    if search.trial_scheduler == "pbt":
        return TwoTaskPopulation(search)
    if search.trial_scheduler == "asha":
        return TwoTaskHalving(search, epochs, [str(search.halving.metric)], all)
    rule = all if search.trial_scheduler == "asha-all" else any
    return TwoTaskHalving(search, epochs, [task.best for task in TASKS], rule)


class TwoTaskHalving(FIFOScheduler):
    """One ladder of asynchronous successive halving a metric; a rule over their verdicts.

    With `all`, as in `train.stop`, a trial goes on as long as one task still earns it. The
    ladders are Ray's own, which stop a trial at a rung if it is worse than the best
    1 / reduction_factor that came there before.
    """

    def __init__(self, search: Search, epochs: int, metrics: Sequence[str], rule: Any) -> None:
        super().__init__()
        self._rule = rule
        self._ladders = [
            ASHAScheduler(
                time_attr=EPOCH,
                metric=metric,
                mode="min",
                max_t=epochs,
                grace_period=search.halving.grace_epochs,
                reduction_factor=search.halving.reduction_factor,
                stop_last_trials=False,
            )
            for metric in metrics
        ]

    def remember(self, name: str, history: Sequence[Epoch]) -> None:
        """Put a trial of an interrupted search back onto the rungs it had reached."""
        trial = SimpleNamespace(trial_id=name)
        for ladder in self._ladders:
            ladder.on_trial_add(None, trial)
            for line in history:
                ladder.on_trial_result(None, trial, dict(line))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let a trial onto the ladders."""
        for ladder in self._ladders:
            ladder.on_trial_add(tune_controller, _named(trial))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return whether the trial goes on."""
        verdicts = [
            ladder.on_trial_result(tune_controller, _named(trial), result)
            for ladder in self._ladders
        ]
        stop = self._rule(verdict == TrialScheduler.STOP for verdict in verdicts)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE


class TwoTaskPopulation(PopulationBasedTraining):
    """Population based training in which trials are ranked by dominance over both losses.

    The worst quarter takes over the state of one of the best, and changes each task's learning
    rate on its own.
    """

    def __init__(self, search: Search) -> None:
        super().__init__(
            time_attr=EPOCH,
            metric=TASKS[0].monitor,
            mode="min",
            perturbation_interval=search.pbt.interval_epochs,
            hyperparam_mutations={key: _domain(search, key) for key in search.sampled},
            log_config=False,
        )

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let a trial into the population; Ray's own check refuses any searcher."""
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)

    def _quantiles(self) -> tuple[list[Trial], list[Trial]]:
        states = [s for t, s in self._trial_state.items() if not t.is_finished() and s.last_result]
        losses = [[s.last_result.get(t.monitor, np.inf) for t in TASKS] for s in states]
        for state, rank in zip(states, dominators(np.array(losses)), strict=True):
            state.last_score = -float(rank)
        return super()._quantiles()

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict, dict]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return config | {"trial": trial.config["trial"]}, operations


def _named(trial: Trial) -> SimpleNamespace:
    """Return what a ladder needs of a trial: a name that is the same when a search is resumed."""
    return SimpleNamespace(trial_id=trial.config["trial"])


def _domain(search: Search, key: str) -> Any:
    domain = search.sampled[key]
    if domain.ends is None:
        return domain.choice
    return (ray.tune.loguniform if domain.loguniform else ray.tune.uniform)(*domain.ends)
