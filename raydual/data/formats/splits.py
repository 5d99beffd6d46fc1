"""Split a source so that pictures cut from one photo stay together."""

import math
import re
from collections.abc import Sequence

from raydual.data.schema import SPLITS, placement
from raydual.errors import DataError

DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)

_ROBOFLOW_SUFFIX = re.compile(r"(_(jpg|jpeg|png|bmp|webp|tif|tiff))?\.rf\.[0-9A-Za-z]+$", re.I)
_TILE_SUFFIXES = (
    re.compile(r"_\d+kv\d+r\w*_\d+$"),  # DSC_1352_12kv2r1k_0
    re.compile(r"[_-]tile[_-]?\d+([_-]\d+)?$", re.I),  # photo_tile_3, photo-tile-2-4
    re.compile(r"[_-]r(ow)?\d+[_-]?c(ol)?\d+$", re.I),  # photo_r2_c4, photo_row2col4
    re.compile(r"[_-]x\d+[_-]?y\d+$", re.I),  # photo_x640_y0
)


def group_key(image_id: str) -> str:
    """The photo that an image comes from; images of one photo share it.

    Taken off the end of the id: Roboflow's `.rf.<hash>` and the `_jpg` before it, then one tile
    suffix: `_<n>kv<n>r<n>k_<n>`, `_tile_<n>`, `_tile_<n>_<n>`, `_r<n>_c<n>` or `_x<n>_y<n>`. A
    plain number stays, since it mostly numbers photos: `BloodImage_00001` is its own key.
    """
    name = _ROBOFLOW_SUFFIX.sub("", image_id)
    for suffix in _TILE_SUFFIXES:
        shorter = suffix.sub("", name)
        if shorter != name:
            return shorter
    return name


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Fractions of train, val and test from `0.8,0.1,0.1`.

    Raises:
        DataError: not three numbers from 0 to 1 that add up to 1.
    """
    try:
        fractions = tuple(float(part) for part in text.split(","))
    except ValueError:
        fractions = ()
    if len(fractions) != 3 or not all(0 <= part <= 1 for part in fractions):
        fractions = ()
    if not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise DataError(
            f"fractions {text!r}: expected three numbers for train, val and test that add up "
            "to 1, such as 0.8,0.1,0.1"
        )
    return fractions  # type: ignore[return-value]


def quotas(total: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, as near to the fractions as can be.

    A fraction above zero gets at least 1 where `total` allows it.
    """
    exact = [total * fraction for fraction in fractions]
    whole = [math.floor(share + 1e-9) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for i in by_rest[: total - sum(whole)]:
        whole[i] += 1
    if total >= sum(fraction > 0 for fraction in fractions):
        for i, fraction in enumerate(fractions):
            if fraction > 0 and whole[i] == 0:
                whole[whole.index(max(whole))] -= 1
                whole[i] = 1
    return whole


def assign_splits(image_ids: Sequence[str], fractions: Sequence[float]) -> dict[str, str]:
    """A split for each image id, whole groups of `group_key` at a time.

    Groups go, the largest first and otherwise in pseudo-random order, to the split that lacks
    the most images. It depends on the ids alone, not on their order.
    """
    groups: dict[str, list[str]] = {}
    for image_id in image_ids:
        groups.setdefault(group_key(image_id), []).append(image_id)
    lacking = dict(zip(SPLITS, quotas(len(image_ids), fractions), strict=True))
    empty = {split for split, quota in lacking.items() if quota > 0}
    result = {}
    by_size = sorted(groups, key=lambda key: (-len(groups[key]), placement(key)))
    for position, key in enumerate(by_size):
        scarce = len(by_size) - position <= len(empty)
        split = max(empty if scarce else lacking, key=lambda name: (lacking[name], name))
        lacking[split] -= len(groups[key])
        empty.discard(split)
        result.update(dict.fromkeys(groups[key], split))
    return result
