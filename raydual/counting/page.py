"""The report of an evaluation: one HTML file that needs no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from plotly.offline import get_plotlyjs

from raydual.counting import charts
from raydual.counting.count_figures import BUCKETS
from raydual.counting.evaluation import Evaluation
from raydual.counting.localisation import NEIGHBOUR_RADIUS, RADII
from raydual.counting.predictions import Prediction
from raydual.counting.summary import Figures, edge
from raydual.counting.worst import COLORS, draw, worst
from raydual.data.images import decode_image

WORST = 12
COUNT_ROWS = {
    "mae": "MAE, objects",
    "rmse": "RMSE, objects",
    "nae": "NAE",
    "sre": "SRE",
    "bias": "bias, objects",
    "exact": "exact",
    "within_1": "within 1",
    "over": "counted too many",
    "under": "counted too few",
}
SHARES = {"exact", "within_1", "over", "under"}
DONE_ROWS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "stopped_too_early": "stopped too early",
    "stopped_too_early_by": "... by, objects",
    "stopped_too_late": "stopped too late",
    "stopped_too_late_by": "... by, objects",
    "stopped_by_done": "stopped because done",
    "stopped_by_repeat": "stopped on a mark already made",
    "stopped_by_unsure": "stopped because no place was likely enough",
    "stopped_by_max_objects": "stopped by the cap",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #f6f7f9; margin: 0; }
main { max-width: 1080px; margin: auto; padding: 24px 16px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 8px; }
.muted, td small, .constant { color: #68737f; } td small { white-space: nowrap; }
.muted { margin: 4px 0; overflow-wrap: anywhere; }
.verdict { font-size: 17px; padding: 12px 16px; border-left: 4px solid; background: #fff; }
.good { border-color: #1f9d55; } .bad { border-color: #d64545; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; background: #fff; }
th, td { padding: 5px 12px; text-align: right; border-bottom: 1px solid #e4e7eb; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.pictures { display: grid; gap: 14px; }
.pictures { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
figure { margin: 0; background: #fff; padding: 8px; overflow-wrap: anywhere; }
img { width: 100%; max-height: 340px; object-fit: contain; display: block; }
.key { margin-right: 18px; font-weight: 600; }
"""


def page(evaluation: Evaluation, figures: Figures, predictions: Sequence[Prediction]) -> str:
    """Return the page; the worst images are read from the dataset once more.

    Raises:
        DataError: a shard of the dataset can no longer be read.
    """
    good = [p for p in predictions if p.error is None]
    sections = [
        _head(evaluation, figures),
        "<h2>Counts</h2>",
        _count_table(figures),
        charts.counted_against_true(good),
        charts.errors(good),
        "<h2>By the number of objects</h2>",
        _bucket_table(figures),
        "<h2>Places</h2>",
        _place_table(figures),
        "<h2>Done</h2>",
        _two_columns(figures, "done", DONE_ROWS),
        "<h2>Teacher-forced, as validated in training</h2>",
        _teacher_table(figures),
        "<h2>The worst images</h2>",
        _worst(evaluation, predictions),
        _unreadable(predictions),
    ]
    title = f"Evaluation of {html.escape(evaluation.subject.path)}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main>{''.join(sections)}</main></body></html>"
    )


def _head(evaluation: Evaluation, figures: Figures) -> str:
    """Say what was evaluated, and whether it is better than answering one number always."""
    name = html.escape(evaluation.subject.path.rstrip("/").rpartition("/")[2])
    epochs = ", ".join(f"{t} of epoch {e}" for t, e in evaluation.subject.epochs.items() if e)
    lines = [
        f"<h1>{name}: counts of the {evaluation.split} split</h1>",
        f'<p class="muted">{html.escape(evaluation.subject.path)}{f" ({epochs})" if epochs else ""}'
        f" on {html.escape(evaluation.data)}, {figures['count/images']:.0f} images</p>",
    ]
    return "".join(lines) + _verdict(figures)


def _verdict(figures: Figures) -> str:
    """Say whether the model counts better than a constant, and whether that is sure."""
    own, high = figures["count/mae"], figures["count/mae_high"]
    constants = [
        (mae, figures[f"{baseline}/mae_low"] or 0.0)
        for baseline in _baselines(figures)
        if (mae := figures[f"{baseline}/mae"]) is not None
    ]
    if own is None or high is None or not constants:
        return ""
    constant, low = min(constants)
    if own >= constant:
        verdict = "no better"
    else:
        verdict = "better" if high < low else "not surely better (the intervals overlap)"
    return (
        f'<p class="verdict {"good" if verdict == "better" else "bad"}">MAE {own:.2f}: {verdict} '
        "than answering every image with one number of the training split, "
        f"MAE {constant:.2f}.</p>"
    )


def _count_table(figures: Figures) -> str:
    baselines = _baselines(figures)
    rows = [
        [
            label,
            _with_interval(figures, f"count/{name}", name in SHARES),
            *(_with_interval(figures, f"{b}/{name}", name in SHARES) for b in baselines),
        ]
        for name, label in COUNT_ROWS.items()
    ]
    return _table(["with 95 % intervals", "this model", *baselines.values()], rows)


def _bucket_table(figures: Figures) -> str:
    """Each bucket that has images, with the constants that know nothing below the model."""
    shown = ["mae", "rmse", "nae", "bias", "exact", "within_1"]
    rows = []
    for bucket in BUCKETS:
        images = figures[f"count/images@{bucket}"]
        if not images:
            continue
        cells = [_with_interval(figures, f"count/{n}@{bucket}", n in SHARES) for n in shown]
        rows.append([f"<b>{html.escape(bucket)}</b>", f"{images:.0f}", *cells])
        for baseline, label in _baselines(figures).items():
            values = [
                _with_interval(figures, f"{baseline}/{n}@{bucket}", n in SHARES) for n in shown
            ]
            rows.append([f'<span class="constant">{label}</span>', "", *values])
    return _table(["objects", "images", *(COUNT_ROWS[name] for name in shown)], rows)


def _baselines(figures: Figures) -> dict[str, str]:
    return {
        f"baseline_{name}": f"always {figures[f'baseline_{name}/count']:.4g} ({name})"
        for name in ("mean", "median")
        if f"baseline_{name}/count" in figures
    }


def _place_table(figures: Figures) -> str:
    names = {"precision": "precision", "recall": "recall", "f1": "F1", "duplicate_rate": "twice"}
    rows = [
        [
            "tenth of the distance between neighbours"
            if radius == NEIGHBOUR_RADIUS
            else radius.replace("px", " px of 384"),
            *(_with_interval(figures, f"loc/{name}@{radius}", True) for name in names),
        ]
        for radius in (*RADII, NEIGHBOUR_RADIUS)
    ]
    return _table(["a mark within", *names.values()], rows)


def _two_columns(figures: Figures, prefix: str, labels: dict[str, str]) -> str:
    rows = [
        [label, _with_interval(figures, f"{prefix}/{name}", not name.endswith("_by"))]
        for name, label in labels.items()
    ]
    return _table(["", "(95 % interval)"], rows)


def _teacher_table(figures: Figures) -> str:
    names = [name for name in figures if name.startswith("teacher_forced/")]
    return _table(
        ["", "mean, or median"],
        [[html.escape(n.partition("/")[2]), _text(figures[n])] for n in names],
    )


def _worst(evaluation: Evaluation, predictions: Sequence[Prediction]) -> str:
    places = worst(predictions, WORST)
    if not places:
        return "<p>Every image was counted right, every mark on its object.</p>"
    key = "".join(
        f'<span class="key" style="color: rgb{color}">'
        f"{'○' if name in ('found', 'missed') else '✕'} {name}</span>"
        for name, color in COLORS.items()
    )
    shown = []
    for place in places:
        prediction = predictions[place]
        picture = io.BytesIO()
        draw(decode_image(evaluation.row(place).image), prediction).save(
            picture, "JPEG", quality=85
        )
        data = base64.b64encode(picture.getvalue()).decode()
        shown.append(
            f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><figcaption>'
            f"{html.escape(prediction.category)}: <b>{prediction.count}</b> counted, "
            f"<b>{prediction.true_count}</b> there<br><span class='muted'>"
            f"{html.escape(prediction.id)}, ended by {prediction.stopped}</span></figcaption>"
            "</figure>"
        )
    return f'<p>{key}</p><div class="pictures">{"".join(shown)}</div>'


def _unreadable(predictions: Sequence[Prediction]) -> str:
    bad = [p for p in predictions if p.error is not None]
    if not bad:
        return ""
    rows = [[html.escape(p.id), html.escape(str(p.error))] for p in bad]
    return "<h2>Images that could not be read</h2>" + _table(["image", "why"], rows)


def _with_interval(figures: Figures, name: str, share: bool) -> str:
    low, high = figures.get(edge(name, "low")), figures.get(edge(name, "high"))
    text = _text(figures[name], share)
    if low is None or high is None:
        return text
    return f"{text} <small>{_text(low, share)} – {_text(high, share)}</small>"


def _text(value: float | None, share: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if share else f"{value:.3g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
