// Parallel coordinates of a search, as plain lines: a line can be clicked, and needs no WebGL.

const LETTER = 7, ROOM = 80, ROW = 56; // px, about: of a letter, least between upright axes, of an axis in a row
const SHADES = ["#27406b", "#5d7fb5", "#a4b9d9", "#d3dbe7"];

/** One axis: where a value stands on it (0 below, 1 on top), and its labels. */
function scale(name, values, choices, log) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (choices || known.some((value) => !isNumber(value))) {
    const all = [...new Set([...(choices ?? []), ...known])];
    all.sort((a, b) => (isNumber(a) && isNumber(b) ? a - b : 0));
    const at = (value) => (all.length > 1 ? all.indexOf(value) / (all.length - 1) : 0.5);
    const step = Math.ceil(all.length / MOST_TICKS);
    return { name, at, ticks: all.filter((value, i) => i % step === 0).map((value) => [at(value), String(value)]) };
  }
  const bend = log && known.every((value) => value > 0) ? Math.log : (value) => value;
  const bent = known.map(bend), low = Math.min(...bent), high = Math.max(...bent);
  const at = (value) => (high > low ? (bend(value) - low) / (high - low) : 0.5);
  const back = bend === Math.log ? Math.exp : (value) => value;
  const marks = high > low ? [0, 0.25, 0.5, 0.75, 1] : known.length ? [0.5] : [];
  const texts = differing(marks.map((mark) => back(low + mark * (high - low))));
  return { name, at, ticks: marks.map((mark, i) => [mark, texts[i]]) };
}

/** Numbers as texts: in two digits, or in as many as make them differ. */
function differing(numbers) {
  const texts = (digits) => numbers.map((value) => number(value, digits));
  return texts([2, 3, 4, 5, 6].find((digits) => new Set(texts(digits)).size === numbers.length) ?? 7);
}

/** Every trial as it was trained, then the outcomes of the front with their own patiences. */
function parallelLines(search) {
  const patience = search.tasks.map((task) => `${task}.patience`);
  const trained = search.trials.map((trial) => ({ trial: trial.name, front: false, values: trial.values, best: trial.best }));
  const values = Object.fromEntries(search.trials.map((trial) => [trial.name, trial.values]));
  const front = search.outcomes.filter((outcome) => outcome.front).map((o) => ({
    trial: o.trial, front: true, best: o.best,
    values: search.parameters.map((p, i) => (patience.includes(p.key) ? o.pairs[0][patience.indexOf(p.key)] : values[o.trial][i])),
  }));
  return [...trained, ...front];
}

/** From 0, the best, to 1: the mean over the tasks of a line's place among all. */
function ranks(search, lines) {
  const orders = search.tasks.map((task) => lines.map((l) => l.best[task]).filter(isNumber).sort((a, b) => a - b));
  return lines.map((line) => {
    const places = search.tasks.map((task, i) => (isNumber(line.best[task]) ? orders[i].indexOf(line.best[task]) / Math.max(1, orders[i].length - 1) : 1));
    return places.reduce((a, b) => a + b, 0) / places.length;
  });
}

function drawParallel(search, selected, onSelect) {
  if (!search.trials.length) return sayInstead("parallel", "There is no trial yet.");
  const lines = parallelLines(search), order = ranks(search, lines);
  const scales = [
    ...search.parameters.map((p, i) => scale(p.key, lines.map((l) => l.values[i]), p.values, p.log)),
    ...search.tasks.map((task) => scale(`best ${task}`, lines.map((l) => l.best[task]), null, true)),
  ];
  const place = $("parallel"), room = place.clientWidth / scales.length, rows = room < ROOM;
  place.style.height = rows ? `${ROW * scales.length + 140}px` : "";
  const cells = (line) => [...line.values, ...search.tasks.map((task) => line.best[task])];
  const trace = (chosen, more) => {
    const made = { type: "scatter", mode: "lines", x: [], y: [], text: [], customdata: [], hovertemplate: "%{text}<extra></extra>", ...more };
    for (const line of chosen) {
      cells(line).forEach((value, i) => {
        made.x.push(i);
        made.y.push(value === null || value === undefined ? null : scales[i].at(value));
        made.text.push(`trial ${plain(line.trial)}<br>${plain(scales[i].name)} = ${plain(number(value))}`);
        made.customdata.push(line.trial);
      });
      for (const list of [made.x, made.y, made.text, made.customdata]) list.push(null);
    }
    return rows ? { ...made, x: made.y, y: made.x } : made;
  };
  const shade = (i) => Math.min(SHADES.length - 1, Math.floor(order[i] * SHADES.length));
  const trained = SHADES.map((color, k) => trace(lines.filter((l, i) => !l.front && shade(i) === k), {
    line: { color, width: 1.3 }, name: ["best quarter", "second quarter", "third quarter", "last quarter"][k],
  })).reverse();
  const traces = [
    ...trained,
    trace(lines.filter((l) => l.front), { name: "Pareto front", line: { color: FRONT, width: 2.2 } }),
    trace(lines.filter((l) => l.trial === selected && !l.front), { name: "selected trial, as trained", line: { color: INK, width: 4 } }),
  ];
  const layout = rows ? inRows(scales, place.clientWidth) : sideBySide(scales, room);
  draw("parallel", traces.filter((t) => t.x.length), { ...layout, showlegend: true, dragmode: false });
  onClick("parallel", (point) => point.customdata && onSelect(point.customdata));
}

const label = (text) => ({
  text, showarrow: false, borderpad: 1, bgcolor: "rgba(255,255,255,.75)", font: { size: 12, color: "#3c4858" },
});
const stroke = (ends) => ({ type: "line", layer: "below", line: { color: "#8f9aab", width: 1 }, ...ends });
const OFF = { visible: false, fixedrange: true };

/** Upright axes, their values to the left of them on a pale ground, since lines run under them. */
function sideBySide(scales, room) {
  const most = Math.min(14, Math.floor(room / LETTER) - 1), last = scales.length - 1;
  const values = scales.map((s) => s.ticks.map(([y, text]) => [y, shorten(text, most)]));
  const longest = Math.max(0, ...values[0].map(([, text]) => text.length));
  return {
    xaxis: { side: "top", tickangle: 0, tickvals: scales.map((s, i) => i), ticktext: scales.map((s) => heading(s.name, most)),
      showgrid: false, zeroline: false, fixedrange: true, range: [0, last] },
    yaxis: { ...OFF, range: [-0.04, 1.04] }, shapes: scales.map((s, i) => stroke({ x0: i, x1: i, y0: 0, y1: 1 })),
    annotations: values.flatMap((ticks, i) => ticks.map(([y, text]) => ({ ...label(plain(text)), x: i, y, xanchor: "right", xshift: -3 }))),
    margin: { l: Math.max(room / 2, 10 + LETTER * longest), r: room / 2, t: 54, b: 20 },
  };
}

/** The name over an axis: in two lines where it is long. */
function heading(name, most) {
  const dot = name.length > 10 ? name.indexOf(".") + 1 : 0;
  const parts = [name.slice(0, dot), name.slice(dot)].filter(Boolean);
  return `<b>${parts.map((part) => plain(shorten(part, most))).join("<br>")}</b>`;
}

/** Axes from left to right, one below the other, their names above and their values below them. */
function inRows(scales, width) {
  const anchor = (x) => (x === 0 ? "left" : x === 1 ? "right" : "center");
  const values = (s, y) => s.ticks.map(([x, text]) => ({
    ...label(plain(shorten(text, Math.min(14, Math.floor(width / s.ticks.length / LETTER))))), x, y, xanchor: anchor(x), yanchor: "top", yshift: -2,
  }));
  return {
    xaxis: { ...OFF, range: [0, 1] }, yaxis: { ...OFF, range: [scales.length - 0.5, -0.5] },
    shapes: scales.map((s, i) => stroke({ x0: 0, x1: 1, y0: i, y1: i })),
    annotations: scales.flatMap((s, i) => [{ ...label(`<b>${plain(s.name)}</b>`), x: 0, y: i, xanchor: "left", yanchor: "bottom" }, ...values(s, i)]),
    margin: { l: 10, r: 10, t: 0, b: 20 },
  };
}
