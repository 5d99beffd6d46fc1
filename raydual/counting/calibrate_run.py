"""Find the thresholds of a run that has just been trained."""

from __future__ import annotations

from raydual.config_tree import Config
from raydual.counting.evaluate import calibrate
from raydual.counting.evaluation import Evaluation
from raydual.counting.subject import CALIBRATION, Subject
from raydual.data.storage import absolute, join
from raydual.training.trackers import ConsoleTracker

MOST_IMAGES = 100
"""Validation images that are counted, each once for every threshold of a cell."""


def calibrate_run(config: Config) -> str:
    """Calibrate `config.run.name` on `MOST_IMAGES` of its validation images; say what was found.

    It counts in this process, or on Ray where GPUs are used.

    Raises:
        RaydualError: as `calibrate`.
    """
    subject = Subject.at(join(absolute(config.run.storage), str(config.run.name)))
    folder = subject.beside(CALIBRATION)
    evaluation = Evaluation(
        subject, subject.config.data.path, "val", folder, most_images=MOST_IMAGES
    )
    with ConsoleTracker(config) as console:
        found, _ = calibrate(evaluation, console, here=not config.scale.use_gpu)
    return found.said("val", subject.most)
