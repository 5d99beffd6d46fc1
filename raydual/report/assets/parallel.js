// Parallel coordinates of a search, as plain lines: a line can be clicked, and needs no WebGL.

const SHADES = ["#27406b", "#5d7fb5", "#a4b9d9", "#d3dbe7"];

/** One axis: where a value stands on it (0 below, 1 on top), and its labels. */
function scale(name, values, choices, log) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (choices || known.some((value) => !isNumber(value))) {
    const all = [...new Set([...(choices ?? []), ...known])];
    all.sort((a, b) => (isNumber(a) && isNumber(b) ? a - b : 0));
    const at = (value) => (all.length > 1 ? all.indexOf(value) / (all.length - 1) : 0.5);
    return { name, at, ticks: all.map((value) => [at(value), String(value)]) };
  }
  const bend = log && known.every((value) => value > 0) ? Math.log : (value) => value;
  const bent = known.map(bend), low = Math.min(...bent), high = Math.max(...bent);
  const at = (value) => (high > low ? (bend(value) - low) / (high - low) : 0.5);
  const back = bend === Math.log ? Math.exp : (value) => value;
  const marks = high > low ? [0, 0.25, 0.5, 0.75, 1] : known.length ? [0.5] : [];
  return { name, at, ticks: marks.map((mark) => [mark, number(Number(back(low + (high > low ? mark * (high - low) : 0)).toPrecision(2)))]) };
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
    return made;
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
  draw("parallel", traces.filter((t) => t.x.length), parallelLayout(scales));
  onClick("parallel", (point) => point.customdata && onSelect(point.customdata));
}

/** The values beside an axis, on a pale ground, since lines run under them. */
function labels(scales) {
  return scales.flatMap((s, i) => s.ticks.map(([y, text]) => ({
    x: i, y, text: plain(text), xanchor: "right", xshift: -3, showarrow: false, borderpad: 1,
    font: { size: 12, color: "#3c4858" }, bgcolor: "rgba(255,255,255,.75)",
  })));
}

function parallelLayout(scales) {
  return {
    xaxis: { side: "top", tickangle: 0, tickvals: scales.map((s, i) => i), ticktext: scales.map((s) => `<b>${s.name.length > 10 ? plain(s.name).replace(".", ".<br>") : plain(s.name)}</b>`),
      showgrid: false, zeroline: false, fixedrange: true, range: [-0.45, scales.length - 0.5] },
    yaxis: { visible: false, fixedrange: true, range: [-0.04, 1.04] },
    shapes: scales.map((s, i) => ({ type: "line", x0: i, x1: i, y0: 0, y1: 1, layer: "below", line: { color: "#8f9aab", width: 1 } })),
    annotations: labels(scales), margin: { l: 10, r: 10, t: 54, b: 20 }, legend: { orientation: "h", y: -0.04, yanchor: "top" }, showlegend: true, dragmode: false,
  };
}
