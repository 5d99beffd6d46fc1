"""Train vision-language models to count one object at a time.

The public API; each name is loaded when it is first used, since torch and transformers take
seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from raydual.registration import register_models
from raydual.version import __version__

if TYPE_CHECKING:
    from raydual.config import load
    from raydual.config_tree import Config
    from raydual.counting.closed_loop import Counter
    from raydual.counting.one_count import Counted
    from raydual.data.letterbox import Letterbox
    from raydual.data.marking import draw_marks
    from raydual.errors import RaydualError
    from raydual.model.counter import DualTaskCounter, Prediction
    from raydual.training.events import EpochResult
    from raydual.training.loop import fit

_HOMES = {
    "Config": "raydual.config_tree",
    "Counted": "raydual.counting.one_count",
    "Counter": "raydual.counting.closed_loop",
    "DualTaskCounter": "raydual.model.counter",
    "EpochResult": "raydual.training.events",
    "Letterbox": "raydual.data.letterbox",
    "Prediction": "raydual.model.counter",
    "RaydualError": "raydual.errors",
    "draw_marks": "raydual.data.marking",
    "fit": "raydual.training.loop",
    "load": "raydual.config",
}

__all__ = [
    "Config",
    "Counted",
    "Counter",
    "DualTaskCounter",
    "EpochResult",
    "Letterbox",
    "Prediction",
    "RaydualError",
    "__version__",
    "draw_marks",
    "fit",
    "load",
]


register_models()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raydual' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
