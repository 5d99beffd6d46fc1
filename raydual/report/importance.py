"""How much each searched parameter decides on each task, by PED-ANOVA.

PED-ANOVA (Watanabe et al., IJCAI 2023) compares where the best outcomes lie in a parameter with
where all lie: a parameter is important if the best ones crowd in a part of its range.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from raydual.report.numbers import is_finite, short

MIN_TRIALS = 4
MAX_OUTCOMES = 800
"""Of more, so many are drawn: the dashboard computes this anew with every epoch."""
BEST_SHARE, MIN_BEST = 0.1, 5
"""What counts as the best outcomes: so large a share of all, and no fewer than of so many trials,
but at most half. The outcomes of one trial lie in one place: alone they would look important."""


def importance(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Judge the parameters of a search, by what its finished and stopped trials gave.

    summary: as `raydual.tuning.results.summary` returns it.

    Returns `shares`: by task, the share of each parameter, which sum to 1; without the tasks on
    which nothing can be said. `note`: on how many outcomes they rest, or why there are none.
    """
    tried = [t for t in summary["trials"] if t["state"] in ("finished", "stopped")]
    tried = [t for t in tried if t["outcomes"]]
    keys = [parameter["key"] for parameter in summary["parameters"]]
    if len(tried) < MIN_TRIALS:
        note = f"trials that have ended: {len(tried)}; importance needs at least {MIN_TRIALS}."
        return {"shares": {}, "note": note}
    points = [
        ({key: {**t["values"], **o}[key] for key in keys}, o) for t in tried for o in t["outcomes"]
    ]
    kept = points
    if len(points) > MAX_OUTCOMES:
        kept = random.Random(0).sample(points, MAX_OUTCOMES)
    logs = {parameter["key"]: parameter["log"] for parameter in summary["parameters"]}
    shares = {}
    for task, name in zip(summary["tasks"], summary["objectives"], strict=False):
        judged = [(values, o[name]) for values, o in kept if is_finite(o.get(name))]
        if found := _shares(judged, logs, min(0.5, max(BEST_SHARE, MIN_BEST / len(tried)))):
            shares[task] = found
    drawn = f", drawn from {len(points)}" if len(kept) < len(points) else ""
    note = f"From {len(kept)} outcomes{drawn}, of {len(tried)} trials."
    if not shares:
        note = "The trials that have ended do not differ in any parameter and loss."
    return {"shares": shares, "note": note}


def _shares(
    judged: Sequence[tuple[Mapping[str, Any], float]], logs: Mapping[str, bool], best: float
) -> dict[str, float]:
    """Return the importance of each parameter for the best share; nothing where all are alike."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len({loss for _, loss in judged}) < 2:
        return {}
    distributions = {k: _distribution([v[k] for v, _ in judged], log) for k, log in logs.items()}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.create_trial(params=dict(values), distributions=distributions, value=loss)
            for values, loss in judged
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna says that the search is small; the page does too
        found = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=best), normalize=False
        )
    total = sum(found.values())
    return {key: short(float(found[key] / total)) for key in logs} if total > 0 else {}


def _distribution(values: Sequence[Any], log: bool) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(value, float) for value in values):
        low, high = min(values), max(values)
        return FloatDistribution(low, high, log=log and low > 0)
    return CategoricalDistribution(list(dict.fromkeys(values)))
