// The figures of a search. `search` is the page's data, `selected` the name of a trial or null.

const PICK_NAMES = (tasks) => Object.fromEntries([...tasks.map((t) => [`best_${t}`, `best ${t}`]), ["knee", "knee"]]);
const HEIGHTS = [-42, -22, -2]; // of the picks' names over their points, px
const COST_BESIDE = { title: { text: "cost,<br>worker-s" }, len: 0.9 };
const COST_ABOVE = { title: { text: "cost, worker-s", side: "top" }, orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", len: 0.6, nticks: 4 };

/** "coord 2, done 3" for each pair of patiences under which a trial ends like this. */
function pairsText(search, outcome) {
  const names = outcome.pairs.map((pair) => pair.join("/"));
  const shown = names.slice(0, 6).join(", ") + (names.length > 6 ? `, and ${names.length - 6} more` : "");
  return `patience ${search.tasks.join("/")}: ${shown}`;
}

/** When a trial ended, and why: of one that was cut short, patience says nothing. */
function endText(search, outcome) {
  return outcome.ended ? `Ends in epoch ${outcome.epoch} with ${pairsText(search, outcome)}`
    : `Cut short in epoch ${outcome.epoch}`;
}

function outcomeText(search, outcome) {
  const losses = search.tasks.map((task) => `${task} ${number(outcome.best[task])}`);
  return [`<b>trial ${plain(outcome.trial)}</b>`, ...losses, seconds(outcome.cost),
    plain(endText(search, outcome))].join("<br>");
}

function drawFront(search, selected, onSelect) {
  const [x, y] = search.tasks;
  const places = search.outcomes.map((o, i) => i).filter((i) => {
    const best = search.outcomes[i].best;
    return isNumber(best[x]) && isNumber(best[y]);
  });
  if (!places.length) return sayInstead("front", "No trial has a loss yet: the first points come with the first epochs.");
  const of = (i) => search.outcomes[i];
  const group = (name, chosen, marker, more = {}) => ({
    type: "scatter", mode: "markers", name, marker, x: chosen.map((i) => of(i).best[x]), y: chosen.map((i) => of(i).best[y]),
    text: chosen.map((i) => outcomeText(search, of(i))), hovertemplate: "%{text}<extra></extra>",
    customdata: chosen.map((i) => [of(i).trial, of(i).epoch]), ...more,
  });
  const front = places.filter((i) => of(i).front);
  const own = places.filter((i) => of(i).trial === selected);
  const traces = [
    group("not at its end", places.filter((i) => !of(i).ended), { symbol: "circle-open", size: 7, color: "#8f9aab" }),
    group("beaten by another", places.filter((i) => of(i).ended && !of(i).front), { size: 7, color: FAINT }),
    group("Pareto front", front, {
      size: 13, color: front.map((i) => of(i).cost), colorscale: [[0, "#a8e0c4"], [0.5, "#22936b"], [1, "#06352a"]],
      line: { width: 1, color: "#fff" },
      colorbar: { thickness: 12, outlinewidth: 0, tickformat: "~s", ...(phone.matches ? COST_ABOVE : COST_BESIDE) },
    }),
    group("selected trial", own, { symbol: "circle-open", size: 18, color: INK, line: { width: 2 } }, { hoverinfo: "skip", hovertemplate: null }),
  ];
  const range = (task) => places.map((i) => of(i).best[task]);
  draw("front", traces.filter((trace) => trace.x.length), {
    xaxis: axis(`best validation loss, ${x}`, range(x)), yaxis: axis(`best validation loss, ${y}`, range(y)),
    annotations: pickLabels(search, x, y, range), showlegend: true, margin: { l: 40, r: 16, t: 10, b: 40 },
  });
  onClick("front", (point) => onSelect(...point.customdata));
}

/** The names of the picks, towards the middle of the figure; the higher a point, the more above it, so that none covers another. */
function pickLabels(search, x, y, range) {
  const names = PICK_NAMES(search.tasks), labels = new Map();
  for (const [name, i] of Object.entries(search.picks)) labels.set(i, [...(labels.get(i) ?? []), names[name]]);
  const place = (task, value) => (axis("", range(task)).type === "log" ? Math.log10(value) : value);
  const [left, right] = [Math.min, Math.max].map((end) => place(x, end(...range(x))));
  const best = (i) => search.outcomes[i].best;
  const fromTop = [...labels].sort(([i], [j]) => best(j)[y] - best(i)[y] || best(i)[x] - best(j)[x]);
  return fromTop.map(([i, texts], k) => {
    const at = place(x, best(i)[x]), inwards = at > (left + right) / 2 ? -1 : 1;
    return {
      x: at, y: place(y, best(i)[y]), text: texts.join(labels.size > 1 ? ", " : "<br>"), align: "left", xanchor: inwards > 0 ? "left" : "right",
      ax: 24 * inwards, ay: HEIGHTS[k % HEIGHTS.length], arrowhead: 0, arrowwidth: 1, arrowcolor: INK, bgcolor: "rgba(255,255,255,.7)", standoff: 7,
    };
  });
}

function drawCurves(search, selected, onSelect) {
  if (!search.trials.some((trial) => trial.epochs.length)) {
    return sayInstead("curves", "No trial has finished an epoch yet.");
  }
  const layout = { annotations: [], showlegend: true }, epochs = search.trials.flatMap((trial) => trial.epochs);
  const traces = search.tasks.flatMap((task, i) => {
    const n = i ? i + 1 : "", place = panel(i, search.tasks.length);
    const all = search.trials.flatMap((trial) => trial.val[task]);
    layout[`xaxis${n}`] = epochAxis(epochs, { domain: place.x, anchor: `y${n}` });
    layout[`yaxis${n}`] = axis("", all, { domain: place.y, anchor: `x${n}` });
    layout.annotations.push(title(`${task} loss`, place, taskColour(search.tasks, task)));
    const ofTrial = search.trials.find((trial) => trial.name === selected);
    const parts = [...allCurves(search, task), ...(ofTrial ? ownCurves(search, ofTrial, task) : [])];
    return parts.map((trace) => ({ ...trace, xaxis: `x${n}`, yaxis: `y${n}` }));
  });
  draw("curves", withLegend(traces), layout);
  onClick("curves", (point) => point.customdata && onSelect(point.customdata));
}

/** The validation losses of all trials as one line with gaps, their best and their last epochs. */
function allCurves(search, task) {
  const line = { x: [], y: [], customdata: [] }, best = { x: [], y: [], customdata: [] }, last = { x: [], y: [], customdata: [] };
  const add = (to, trial, k) => {
    to.x.push(trial.epochs[k]);
    to.y.push(trial.val[task][k]);
    to.customdata.push(trial.name);
  };
  for (const trial of search.trials) {
    trial.epochs.forEach((epoch, k) => {
      add(line, trial, k);
      if (epoch === trial.best_epoch[task]) add(best, trial, k);
    });
    if (trial.epochs.length) add(last, trial, trial.epochs.length - 1);
    line.x.push(null); line.y.push(null); line.customdata.push(null);
  }
  const hovertemplate = "trial %{customdata}<br>epoch %{x}: %{y:.4g}<extra></extra>";
  const base = { type: "scatter", hovertemplate };
  return [
    { ...base, ...line, name: "all trials", mode: "lines", line: { color: "rgba(120,132,150,.38)", width: 1 } },
    { ...base, ...best, name: "best epoch", mode: "markers", marker: { size: 5, color: "rgba(90,102,120,.7)" } },
    { ...base, ...last, name: "last epoch", mode: "markers", marker: { symbol: "x-thin", size: 6, line: { width: 1.2, color: "rgba(90,102,120,.8)" } } },
  ];
}

function ownCurves(search, trial, task) {
  const colour = taskColour(search.tasks, task);
  const at = (epoch) => trial.val[task][trial.epochs.indexOf(epoch)];
  const ends = search.outcomes.filter((o) => o.trial === trial.name && o.ended);
  const best = trial.best_epoch[task];
  const base = { type: "scatter", x: trial.epochs, hovertemplate: `<b>trial ${plain(trial.name)}</b> epoch %{x}: %{y:.4g}<extra></extra>` };
  return [
    { ...base, name: "selected, training", mode: "lines", y: trial.train[task], line: { color: colour, width: 2, dash: "dot" } },
    { ...base, name: "selected, validation", mode: "lines", y: trial.val[task], line: { color: colour, width: 3 } },
    { ...base, name: "its best epoch", mode: "markers", x: best ? [best] : [], y: best ? [at(best)] : [],
      marker: { symbol: "star", size: 15, color: colour, line: { color: "#fff", width: 1 } } },
    { ...base, name: "where patience ends it", mode: "markers", x: ends.map((o) => o.epoch), y: ends.map((o) => at(o.epoch)),
      text: ends.map((o) => plain(pairsText(search, o))), hovertemplate: "ends in epoch %{x} with %{text}<extra></extra>",
      marker: { symbol: "triangle-down", size: 11, color: "#fff", line: { color: colour, width: 2 } } },
  ];
}

function drawHeat(search, selected, which) {
  const heat = search.heat;
  $("heat-choice").hidden = !heat || !Object.keys(heat.trials).length;
  $("heat-note").textContent = "";
  if (!heat) return sayInstead("heat", "This search has tried one pair of patiences only: search coord.patience and done.patience to fill this map.");
  const maps = which === "one" ? heat.trials[selected] : heat.all;
  if (!maps || (which === "all" && !heat.count)) {
    return sayInstead("heat", which === "one" ? "The selected trial has not come to the end of any pair." : "No trial has come to the end of every pair yet.");
  }
  $("heat-note").textContent = which === "one" ? `Trial ${selected}. An empty cell: it was cut short before that pair's end.`
    : heat.count === 1 ? "From the one trial that came to the end of every pair."
      : `Median over the ${heat.count} trials that came to the end of every pair.`;
  const names = [...search.tasks, "cost"], layout = { annotations: [] };
  const traces = names.map((name, i) => {
    const n = i ? i + 1 : "", place = panel(i, names.length);
    const cost = name === "cost", colour = cost ? "#5b6675" : taskColour(search.tasks, name);
    const most = cost ? 1 : Math.max(0.1, ...maps[name].flat().filter(isNumber));
    const category = { type: "category", showgrid: false, ticks: "", tickformat: "", fixedrange: true };
    layout[`xaxis${n}`] = axis(`${search.tasks[0]}.patience`, [], { ...category, domain: place.x, anchor: `y${n}` });
    layout[`yaxis${n}`] = axis(place.x[0] ? "" : `${search.tasks[1]}.patience`, [], { ...category, domain: place.y, anchor: `x${n}` });
    layout.annotations.push(title(cost ? "cost, of the largest" : `${name} loss, above the best`, place, colour));
    return {
      type: "heatmap", x: heat.x.map(String), y: heat.y.map(String), z: maps[name], xaxis: `x${n}`, yaxis: `y${n}`,
      zmin: 0, zmax: most, colorscale: [[0, "#fbfcfd"], [1, colour]], showscale: false, xgap: 2, ygap: 2,
      text: maps[name].map((row) => row.map((z) => (isNumber(z) ? (cost || z === 0 ? "" : "+") + percent(z) : ""))), texttemplate: "%{text}",
      hovertemplate: `${search.tasks[0]} %{x}, ${search.tasks[1]} %{y}: %{text}<extra></extra>`,
    };
  });
  draw("heat", traces, layout);
}

function drawImportance(search) {
  const { shares, note } = search.importance;
  const tasks = search.tasks.filter((task) => shares[task]);
  $("importance-note").textContent = tasks.length ? note : "";
  if (!tasks.length) return sayInstead("importance", note);
  const keys = search.parameters.map((parameter) => parameter.key).reverse();
  const traces = tasks.map((task) => ({
    type: "bar", orientation: "h", name: task, marker: { color: taskColour(search.tasks, task) },
    y: keys.map(plain), x: keys.map((key) => shares[task][key]), text: keys.map((key) => percent(shares[task][key])),
    textposition: "outside", cliponaxis: false, hovertemplate: `${task}, %{y}: %{text}<extra></extra>`,
  }));
  draw("importance", traces.reverse(), {
    barmode: "group", bargap: 0.35, xaxis: axis("share", [], { tickformat: ".0%", range: [0, 1.08] }),
    yaxis: { ticks: "", automargin: true, tickvals: keys.map(plain), ticktext: keys.map((key) => plain(shorten(key, phone.matches ? 18 : 30))) },
    legend: { ...LEGEND, traceorder: "reversed" }, showlegend: true, margin: { l: 40, r: 30, t: 10, b: 40 },
  });
}
