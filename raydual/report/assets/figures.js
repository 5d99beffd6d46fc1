// How every figure looks, and what stands there when it would be empty.

const drawing = new Set(); // the figures that plotly has not finished yet
const FONT = { family: "system-ui, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif", size: 13, color: INK };
const BUTTONS = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

/** Draws a figure anew; what the reader has zoomed or hidden in it stays (uirevision). */
function draw(id, traces, layout) {
  const place = $(id);
  place.classList.remove("empty");
  if (!place.data) place.textContent = "";
  const look = {
    font: FONT, uirevision: "keep", hovermode: "closest", dragmode: "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 62, r: 16, t: 34, b: 48 },
    legend: { orientation: "h", y: -0.2, yanchor: "top" },
    hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: INK, font: { color: INK } },
  };
  const done = Plotly.react(place, traces, { ...look, ...layout }, BUTTONS);
  drawing.add(done);
  done.finally(() => drawing.delete(done));
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

/** An axis; logarithmic where all values are above 0 and spread over more than a factor of 3. */
function axis(title, values, more = {}) {
  const known = values.filter(isNumber);
  const low = Math.min(...known), high = Math.max(...known);
  const log = known.length > 1 && low > 0 && high > 3 * low;
  return {
    title: { text: title, standoff: 8 }, type: log ? "log" : "linear", tickformat: "~g",
    gridcolor: GRID, zeroline: false, linecolor: FAINT, ticks: "outside", tickcolor: FAINT,
    nticks: 7, ...more,
  };
}

const epochAxis = (more = {}) => axis("epoch", [], { tickformat: "d", rangemode: "tozero", ...more });
const title = (text, x, colour = INK) => ({
  text: `<b>${text}</b>`, x, xref: "paper", xanchor: "center", y: 1.02, yref: "paper", yanchor: "bottom",
  showarrow: false, font: { size: 14, color: colour },
});
