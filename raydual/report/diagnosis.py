"""What the history of a training says, in plain words.

Pure functions of a history: the lines of metrics.jsonl, one mapping an epoch. A task is judged by
`train/loss_TASK` and `val/loss_TASK`, whose lowest possible value is 0. `start` is the larger of
its first two losses, `left` the share of it that the best validation loss still is.

not_finite: a task's losses are no numbers in the last epoch.
overfitting: the best validation loss is followed by at least TAIL epochs, the median of the last
    TAIL validation losses is more than RISE above it, and the median of the last TAIL training
    losses is at least FALL below that of the best epoch.
never_learned: `left` is above 1 - LEARNED, and the task does not overfit.
imbalance: `left` is at least FAR for a task that has learned, and at most NEAR for another.
too_early: there are fewer than MIN_EPOCHS epochs.
healthy: none of these, of any task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from raydual.report.numbers import is_finite

Kind = Literal[
    "not_finite", "overfitting", "never_learned", "imbalance", "healthy", "too_early", "improving"
]

MIN_EPOCHS = 3
TAIL = 3
RISE, FALL = 0.1, 0.05
LEARNED = 0.1
NEAR, FAR = 0.2, 0.5
HARDER = 1.25
"""One task is harder than another if so many times the share of its starting loss is left."""
SLOWER = 1.5
"""If the shares are closer, if it took so many times the epochs to 90 % of its gain."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found. since: the first epoch it holds for, where there is one."""

    kind: Kind
    task: str | None
    since: int | None
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """All that was found.

    harder: the harder task, None where neither is. evidence: what says so.
    """

    headline: str
    findings: list[Finding]
    harder: str | None
    evidence: str


@dataclass(frozen=True)
class Course:
    """The losses of one task over the epochs in which both are finite; at least one epoch."""

    task: str
    epochs: list[int]
    train: list[float]
    val: list[float]

    @property
    def start(self) -> float:
        """The larger of the first two losses: before the first epoch both were about there."""
        return max(self.train[0], self.val[0])

    @property
    def best(self) -> float:
        """The lowest validation loss."""
        return min(self.val)

    @property
    def best_epoch(self) -> int:
        """The first epoch with the lowest validation loss."""
        return self.epochs[self.val.index(self.best)]

    @property
    def left(self) -> float:
        """The share of the starting loss that is left, 0 where there was nothing to learn."""
        return self.best / self.start if self.start > 0 else 0.0

    @property
    def learned(self) -> bool:
        """Whether validation got markedly better."""
        return self.left <= 1 - LEARNED

    @property
    def epoch_of_most(self) -> int:
        """The first epoch with 90 % of the whole gain."""
        enough = self.start - 0.9 * (self.start - self.best)
        return next(e for e, loss in zip(self.epochs, self.val, strict=True) if loss <= enough)


def course_of(history: Sequence[Mapping[str, Any]], task: str) -> Course | None:
    """Return the finite part of a task's losses; None where there is none."""
    rows = [
        (line["epoch"], line.get(f"train/loss_{task}"), line.get(f"val/loss_{task}"))
        for line in history
    ]
    finite = [row for row in rows if is_finite(row[1]) and is_finite(row[2])]
    return Course(task, *map(list, zip(*finite, strict=True))) if finite else None


def diagnose(history: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Diagnosis:
    """Judge a history of any length; see the module for the thresholds."""
    if len(history) < MIN_EPOCHS:
        text = f"Too early to say: epochs so far {len(history)}, needed {MIN_EPOCHS}"
        return Diagnosis(text, [], None, "")
    findings = [f for f in (_broken(history, task) for task in tasks) if f]
    broken = {finding.task for finding in findings}
    courses = [c for t in tasks if t not in broken and (c := course_of(history, t))]
    for course in courses:
        findings += [f for f in (_overfitting(course) or _never_learned(course),) if f]
    findings += _imbalance(courses)
    headline = "; ".join(_short(f) for f in findings)
    if not findings:
        headline = "Healthy: every task learns and none overfits"
        findings = [_healthy(course) for course in courses]
    findings += [f for f in map(_improving, courses) if f]
    return Diagnosis(headline, findings, *_harder(courses))


def _broken(history: Sequence[Mapping[str, Any]], task: str) -> Finding | None:
    names = (f"train/loss_{task}", f"val/loss_{task}")
    since = None
    for line in reversed(history):
        if all(is_finite(line.get(name)) for name in names):
            break
        since = line["epoch"]
    if since is None:
        return None
    text = (
        f"{task}: its loss is not a number since epoch {since}. "
        f"Try a smaller {task}.lr, or a smaller {task}.clip_norm."
    )
    return Finding("not_finite", task, since, text)


def _overfitting(course: Course) -> Finding | None:
    best_at = course.epochs.index(course.best_epoch)
    if len(course.epochs) - 1 - best_at < TAIL:
        return None
    val, train = median(course.val[-TAIL:]), median(course.train[-TAIL:])
    if val - course.best <= RISE * course.best or train > (1 - FALL) * course.train[best_at]:
        return None
    since = course.epochs[best_at + 1]
    text = (
        f"{course.task} overfits since epoch {since}: its training loss goes on falling "
        f"({course.train[best_at]:.4g} to {train:.4g}), its validation loss rises "
        f"({course.best:.4g} to {val:.4g}). The best checkpoint is that of epoch "
        f"{course.best_epoch}; more training images would put this off."
    )
    return Finding("overfitting", course.task, since, text)


def _never_learned(course: Course) -> Finding | None:
    if course.learned:
        return None
    on_train = min(course.train) <= (1 - LEARNED) * course.start
    why = (
        f"Its training loss did fall, to {min(course.train):.4g}: what it learns does not carry "
        "over to the validation images; look at them with `raydual data preview`."
        if on_train
        else f"Its training loss did not fall either: try a larger or smaller {course.task}.lr, "
        "and look at the data with `raydual data check`."
    )
    text = (
        f"{course.task} never learned: its best validation loss, {course.best:.4g}, is "
        f"{_percent(course.left)} of where it started ({course.start:.4g}). {why}"
    )
    return Finding("never_learned", course.task, None, text)


def _imbalance(courses: Sequence[Course]) -> list[Finding]:
    near = [c for c in courses if c.left <= NEAR]
    far = [c for c in courses if c.left >= FAR and c.learned]
    return [
        Finding(
            "imbalance",
            behind.task,
            None,
            f"Imbalance: {ahead.task} is near its floor ({_percent(ahead.left)} of its starting "
            f"loss is left), {behind.task} is far from it ({_percent(behind.left)}). Give "
            f"{behind.task} more of the trunk: a larger {behind.task}.lr, or a smaller "
            f"{ahead.task}.lr.",
        )
        for behind in far
        for ahead in near[:1]
    ]


def _healthy(course: Course) -> Finding:
    text = (
        f"{course.task} learns: its validation loss fell from {course.start:.4g} to "
        f"{course.best:.4g} (best in epoch {course.best_epoch}); in the last epoch it is "
        f"{course.val[-1]:.4g}."
    )
    return Finding("healthy", course.task, None, text)


def _improving(course: Course) -> Finding | None:
    if course.best_epoch != course.epochs[-1] or not course.learned:
        return None
    text = f"{course.task} was still improving in the last epoch: training longer may help."
    return Finding("improving", course.task, course.epochs[-1], text)


def _harder(courses: Sequence[Course]) -> tuple[str | None, str]:
    """Return the harder task and the evidence; None where two tasks are about equally hard."""
    if len(courses) < 2:
        return None, ""
    by_left = sorted(courses, key=lambda c: c.left)
    facts = "; ".join(
        f"{c.task}: {_percent(c.left)} of its starting loss is left"
        + (f", and 90 % of its gain was there in epoch {c.epoch_of_most}" if c.learned else "")
        for c in courses
    )
    if by_left[-1].left > HARDER * by_left[0].left:
        task = by_left[-1].task
        return task, f"{task} was the harder task, by the loss that is left. {facts}."
    by_speed = sorted(courses, key=lambda c: c.epoch_of_most)
    slower = by_speed[-1].epoch_of_most > SLOWER * by_speed[0].epoch_of_most
    if slower and all(c.learned for c in courses):
        task = by_speed[-1].task
        return task, f"{task} was the harder task, by the epochs it took. {facts}."
    return None, f"The tasks were about equally hard. {facts}."


def _short(finding: Finding) -> str:
    return {
        "not_finite": f"{finding.task} broke down in epoch {finding.since}",
        "overfitting": f"{finding.task} overfits since epoch {finding.since}",
        "never_learned": f"{finding.task} never learned",
        "imbalance": f"Imbalance: {finding.task} lags behind",
    }[finding.kind]


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
