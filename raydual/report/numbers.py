"""Numbers as a page carries them: few digits, and nothing that JSON does not know."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

DIGITS = 4


def short(value: Any) -> Any:
    """Round a number to four significant digits; None for one that is not finite.

    Whole numbers, texts and truth values stay as they are.
    """
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether it is a number, and neither infinite nor NaN."""
    return isinstance(value, (int, float)) and math.isfinite(value)
