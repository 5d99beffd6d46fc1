"""How many objects a look marks."""

from __future__ import annotations

import sys

from raydual.config_tree import Config
from raydual.errors import ConfigError

ALL = "all"
PerLook = int | str
"""The most objects that one look marks: a number of 1 or more, or `ALL`."""


def parse(text: str | None) -> PerLook | None:
    """Read what a command line says; what is no number is left to `marks_a_look`."""
    return int(text) if text is not None and text.isdecimal() else text


def marks_a_look(per_look: PerLook | None, config: Config) -> int:
    """Return how many objects a look marks at the most.

    per_look: None for all where every object has taught its cell (`coord.match=all`, of a head with
    a grid), else one: a head that has learned the next object alone says less well where the others
    are. config: what the coordinate model was trained with.

    Raises:
        ConfigError: `per_look` is neither a number of 1 or more nor `all`; or more than one from a
            head without a grid.
    """
    has_grid = config.model.coord_head == "pointing"
    if per_look is None:
        per_look = ALL if has_grid and config.coord.match == "all" else 1
    number = sys.maxsize if per_look == ALL else per_look
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigError(f"per_look={per_look!r}: a number of 1 or more, or `{ALL}`, is expected")
    if number > 1 and not has_grid:
        raise ConfigError(
            f"per_look={per_look} needs a model with model.coord_head=pointing, whose cells say "
            f"where objects are; this one has {config.model.coord_head}: use 1"
        )
    return number
