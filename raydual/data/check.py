"""Look through a dataset for what would break a training, and for what may spoil one."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydual.data.images import CorruptImageError, decode_image
from raydual.data.manifest import Manifest, SplitInfo, read_manifest
from raydual.data.ordering import to_reference
from raydual.data.schema import SPLITS, Row, read_rows

DUPLICATE_DISTANCE = 2.0
"""Points no further apart, in pixels of the 384-pixel reference frame, may be one object twice."""

LOOKALIKE_BITS = 2
LOOKALIKE_LEVELS = 16
"""Pictures look alike when their difference hashes differ in at most `LOOKALIKE_BITS` of 64, and
their thumbnails of 18 x 16 pixels nowhere by more than `LOOKALIKE_LEVELS` of 255."""

Severity = Literal["error", "warning", "info"]
_BITS_SET = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


@dataclass(frozen=True)
class Finding:
    """Something found: how often, and where."""

    severity: Severity
    what: str
    count: int
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All that a check found. `counts` holds the number of objects of every row."""

    manifest: Manifest
    findings: list[Finding]
    counts: list[int]

    @property
    def breaks_training(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True)
class _Print:
    """What is kept of a picture to find it again: its hash of differences and a thumbnail."""

    row_id: str
    split: str
    bits: int
    thumbnail: np.ndarray


def check(path: str | Path, progress: Callable[[Iterable[Row]], Iterable[Row]] = iter) -> Report:
    """Read every row of a dataset and decode every image.

    Errors, which would break a training: corrupt images, points outside the image, one picture
    in two splits, an empty train or val split. Warnings: a stored width or height that is not
    the image's, points within 2 px of each other, pictures of two splits that look alike, an id
    that several rows have.
    `progress` passes on the rows it is given, and may show how far that is.

    Raises:
        DataError: there is no dataset, or a shard cannot be read.
    """
    manifest = read_manifest(path)
    names: dict[str, list[str]] = defaultdict(list)
    pictures: dict[bytes, _Print] = {}
    counts = []
    ids: set[str] = set()
    for row in progress(read_rows(path)):
        if row.id in ids:
            names["id of several rows"].append(row.id)
        ids.add(row.id)
        counts.append(len(row.points))
        if not len(row.points):
            names["image without objects"].append(row.id)
        try:
            image = decode_image(row.image)
        except CorruptImageError as error:
            names["corrupt image"].append(f"{row.id}: {error}")
            continue
        for what in _faults(row, image.size):
            names[what].append(row.id)
        content = hashlib.blake2b(repr(image.size).encode() + image.tobytes()).digest()
        first = pictures.setdefault(content, _fingerprint(row, image))
        if first.split != row.split:
            pair = f"{first.row_id} ({first.split}) = {row.id} ({row.split})"
            names["same picture in two splits"].append(pair)
    names["pictures of two splits look alike"] = _lookalikes(list(pictures.values()))
    return Report(manifest, _findings(names, manifest), counts)


_SEVERITIES: dict[str, Severity] = {
    "corrupt image": "error",
    "point outside the image": "error",
    "same picture in two splits": "error",
    "width or height is not the image's": "warning",
    "points within 2 px of each other": "warning",
    "pictures of two splits look alike": "warning",
    "id of several rows": "warning",
    "image without objects": "info",
}


def _findings(names: dict[str, list[str]], manifest: Manifest) -> list[Finding]:
    """The findings, the worst first; what the importer left out comes last."""
    empty = [s for s in SPLITS[:2] if not manifest.splits.get(s, SplitInfo()).images]
    findings = [Finding("error", f"split {split} is empty", 1) for split in empty]
    findings += [
        Finding(severity, what, len(names[what]), names[what])
        for what, severity in _SEVERITIES.items()
        if names[what]
    ]
    left_out = manifest.left_out.items()
    return findings + [Finding("info", f"at import: {why}", count) for why, count in left_out]


def _faults(row: Row, size: tuple[int, int]) -> list[str]:
    """What is wrong with the points of a row and its size, once an occurrence."""
    faults = []
    if (row.width, row.height) != size:
        faults.append("width or height is not the image's")
    inside = ((row.points >= 0) & (row.points <= size)).all(axis=1)
    faults += ["point outside the image"] * int((~inside).sum())
    close = _close_pairs(to_reference(row.points[inside], *size))
    return faults + ["points within 2 px of each other"] * close


def _close_pairs(points: np.ndarray) -> int:
    """How many pairs of points (N, 2) are within `DUPLICATE_DISTANCE`; linear in memory."""
    points = points[np.argsort(points[:, 0])]
    pairs = 0
    for step in range(1, len(points)):
        apart = points[step:] - points[:-step]
        if apart[:, 0].min() > DUPLICATE_DISTANCE:
            break
        pairs += int((np.hypot(*apart.T) <= DUPLICATE_DISTANCE).sum())
    return pairs


def _fingerprint(row: Row, image: Image.Image) -> _Print:
    thumbnail = image.resize((18, 16), Image.Resampling.BOX)
    grey = np.asarray(thumbnail.convert("L").reduce(2), dtype=np.int16)  # 8 x 9
    bits = np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)[0]
    return _Print(row.id, row.split, int(bits), np.asarray(thumbnail, dtype=np.int16))


def _lookalikes(prints: list[_Print]) -> list[str]:
    """Pairs of pictures of different splits that look alike, in words."""
    pairs = []
    of_split = {split: [p for p in prints if p.split == split] for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        bits = np.array([p.bits for p in of_split[one]], dtype=np.uint64)
        for p in of_split[other]:
            differences = (bits ^ np.uint64(p.bits)).view(np.uint8).reshape(-1, 8)
            near = _BITS_SET[differences].sum(axis=1) <= LOOKALIKE_BITS
            for candidate in (of_split[one][i] for i in np.flatnonzero(near)):
                if np.abs(candidate.thumbnail - p.thumbnail).max() <= LOOKALIKE_LEVELS:
                    pairs.append(f"{candidate.row_id} ({one}) ~ {p.row_id} ({other})")
    return pairs


def histogram(counts: list[int], bins: int = 12) -> list[tuple[str, int]]:
    """Label and number of rows for each of at most `bins` ranges of equal width."""
    if not counts:
        return []
    low, high = min(counts), max(counts)
    width = -(-(high - low + 1) // bins)
    starts = range(low, high + 1, width)
    labels = [f"{start}" if width == 1 else f"{start}-{start + width - 1}" for start in starts]
    numbers = np.bincount((np.array(counts) - low) // width, minlength=len(labels))
    return list(zip(labels, numbers.tolist(), strict=True))


def show(report: Report, console: Console) -> None:
    """Print a report: the splits, the counts of objects as bars, and the findings."""
    splits = Table("split", "images", "objects", title=escape(report.manifest.source))
    for split, info in report.manifest.splits.items():
        splits.add_row(split, f"{info.images:,}", f"{info.objects:,}")
    console.print(splits)
    bars = histogram(report.counts)
    most = max((number for _, number in bars), default=1)
    counts = Table("objects", "images", "", title="Objects in an image")
    for label, number in bars:
        counts.add_row(label, f"{number:,}", "█" * -(-40 * number // most))
    console.print(counts)
    findings = Table("", "found", "times", "where", title="Findings")
    colours = {"error": "red", "warning": "yellow", "info": "cyan"}
    for finding in report.findings:
        names = list(dict.fromkeys(finding.names))
        where = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        label = f"[{colours[finding.severity]}]{finding.severity}[/]"
        findings.add_row(label, finding.what, f"{finding.count:,}", escape(where))
    console.print(findings if report.findings else "Nothing to complain about.")
