"""The charts of an evaluation's report."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import plotly.io

from raydual.counting.predictions import Prediction

BLUE, GREY = "#2f6fde", "#9aa5b1"


def counted_against_true(predictions: Sequence[Prediction]) -> str:
    """Return a chart of the counts over the true ones; dots grow with the number of images."""
    images: dict[tuple[int, int], list[str]] = defaultdict(list)
    for prediction in predictions:
        images[prediction.true_count, prediction.count].append(prediction.id)
    true, counted = np.array(list(images)).T
    most = int(max(true.max(), counted.max(), 1))
    names = [
        html.escape(", ".join(ids[:3]) + (", ..." if len(ids) > 3 else ""))
        for ids in images.values()
    ]
    dots = go.Scatter(
        x=true,
        y=counted,
        mode="markers",
        marker={
            "size": [6 + 4 * np.log2(len(ids)) for ids in images.values()],
            "color": BLUE,
            "opacity": 0.65,
        },
        customdata=[[len(ids), name] for ids, name in zip(images.values(), names, strict=True)],
        hovertemplate="%{x} there, %{y} counted<br>%{customdata[0]} images: %{customdata[1]}"
        "<extra></extra>",
    )
    right = go.Scatter(
        x=[0, most], y=[0, most], mode="lines", line={"color": GREY, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    return _html([right, dots], "objects there", "objects counted", 460)


def errors(predictions: Sequence[Prediction]) -> str:
    """Return a histogram of counted minus true."""
    error = [p.count - p.true_count for p in predictions]
    width = max(1, -(-(max(error) - min(error) + 1) // 60))
    bars = go.Histogram(
        x=error, xbins={"start": min(error) - 0.5, "size": width}, marker={"color": BLUE}
    )
    return _html([bars], "counted minus true", "images", 300)


def _html(traces: Sequence[object], x: str, y: str, height: int) -> str:
    figure = go.Figure(traces)
    figure.update_layout(
        height=height,
        showlegend=False,
        template="plotly_white",
        bargap=0.05,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        xaxis_title=x,
        yaxis_title=y,
    )
    return plotly.io.to_html(
        figure, include_plotlyjs=False, full_html=False, config={"displaylogo": False}
    )
