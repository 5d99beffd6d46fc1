// How every figure looks, and what stands there when it would be empty.

const phone = matchMedia("(max-width: 700px)");
const drawing = new Set(); // the figures that plotly has not finished yet
const FONT = { family: "system-ui, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif", size: 13, color: INK };
const LEGEND = { orientation: "h", xref: "container", x: 0, yref: "container", y: 0, yanchor: "bottom" };
const MOST_TICKS = 8; // of an axis on which every epoch or every value has one
const BUTTONS = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

/** Draws a figure anew; what the reader has zoomed or hidden in it stays (uirevision). */
function draw(id, traces, layout) {
  const place = $(id);
  place.classList.remove("empty");
  if (!place.data) place.textContent = "";
  const look = {
    font: FONT, uirevision: "keep", hovermode: "closest", dragmode: phone.matches ? false : "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 40, r: 16, t: 34, b: 40 },
    legend: LEGEND,
    hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: INK, font: { color: INK } },
  };
  const done = Plotly.react(place, traces, { ...look, ...layout }, BUTTONS);
  drawing.add(done);
  done.finally(() => drawing.delete(done));
}

/** Takes all figures away, so that they can be drawn with other parts. */
function clearFigures() {
  for (const place of document.querySelectorAll(".js-plotly-plot")) {
    Plotly.purge(place);
    place.listens = false;
  }
}

/** Several panels, one legend: each name once, at the first of its traces that shows anything. */
function withLegend(traces) {
  const named = new Set();
  return traces.map((trace) => {
    const showlegend = trace.x.length > 0 && !named.has(trace.name);
    if (showlegend) named.add(trace.name);
    return { ...trace, showlegend, legendgroup: trace.name };
  });
}

/** Says in a sentence why there is no figure. */
function sayInstead(id, sentence) {
  const place = $(id);
  if (place.data) Plotly.purge(place);
  place.classList.add("empty");
  place.textContent = sentence;
}

/** Calls back with the clicked point; once for each figure, however often it is drawn. */
function onClick(id, callback) {
  const place = $(id);
  if (place.listens || !place.on) return;
  place.listens = true;
  place.on("plotly_click", (event) => callback(event.points[0]));
}

/**
 * An axis; logarithmic where all values are above 0 and spread over more than a factor of 3.
 * It shows nothing below 0 unless a value is, and the surroundings of values that are all the same.
 * A zoom ends where its type changes: the numbers of its range mean something else then.
 */
function axis(title, values, more = {}) {
  const known = values.filter(isNumber);
  const low = Math.min(...known), high = Math.max(...known);
  const type = known.length > 1 && low > 0 && high > 3 * low ? "log" : "linear", room = 0.1 * Math.abs(low);
  return {
    title: { text: title, standoff: 8 }, type, uirevision: type, tickformat: "~g", automargin: true,
    gridcolor: GRID, zeroline: false, linecolor: FAINT, ticks: "outside", tickcolor: FAINT,
    nticks: type === "log" ? (phone.matches || high > 7 * low ? 3 : 5) : 0, rangemode: low < 0 ? "normal" : "nonnegative",
    autorangeoptions: room && low === high ? { clipmin: low - room, clipmax: high + room } : {}, ...more,
  };
}

/** An axis of whole numbers: plotly's own steps are below 1 where there are few epochs. */
function epochAxis(epochs, more = {}) {
  return axis("epoch", [], { rangemode: "tozero", ...(Math.max(...epochs) <= MOST_TICKS && { dtick: 1 }), ...more });
}

/** Where the i-th of several panels is: beside the one before, or on a phone below it. */
function panel(i, count) {
  const gap = (phone.matches ? 0.36 : 0.2) / count, size = (1 - gap * (count - 1)) / count;
  const start = i * (size + gap), end = Math.min(1, start + size);
  return phone.matches ? { x: [0, 1], y: [1 - end, 1 - start] } : { x: [start, end], y: [0, 1] };
}

const title = (text, place, colour = INK) => ({
  text: `<b>${text}</b>`, x: (place.x[0] + place.x[1]) / 2, xref: "paper", xanchor: "center",
  y: place.y[1], yref: "paper", yanchor: "bottom", yshift: 4, showarrow: false, font: { size: 14, color: colour },
});
