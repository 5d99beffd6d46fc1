// The page of a single run.

const SHARE = { type: "linear", nticks: 0, tickformat: ".0%", autorangeoptions: { clipmax: 1.02 } };
const BAD = ["not_finite", "overfitting", "never_learned", "imbalance"];

function showRun(run) {
  $("name").textContent = run.name;
  const last = run.epochs.at(-1) ?? 0;
  $("facts").textContent = run.max_epochs ? `${last} of at most ${run.max_epochs} epochs` : `${last} epochs`;
  $("path").textContent = run.path;
  showDiagnosis(run.diagnosis);
  drawLosses(run);
  drawPlain(run);
  drawLines(run, "lr", "train/lr_", "learning rate", "No learning rate has been recorded.");
  drawLines(run, "norms", "train/grad_norm_", "gradient norm", "No gradient norm has been recorded.");
  drawLines(run, "cosine", "train/grad_cosine", "cosine", "Not recorded: the tasks share no trunk here, or are trained on one summed loss.");
  showPictures(run.pictures);
  fill("config", run.config || "There is no config.yaml in this folder.");
}

function showDiagnosis(diagnosis) {
  const points = diagnosis.findings.map((f) => element("li", { class: BAD.includes(f.kind) && "bad", "data-kind": f.kind }, f.text));
  if (diagnosis.evidence) points.push(element("li", { "data-kind": "harder" }, diagnosis.evidence));
  fill("diagnosis", element("b", {}, diagnosis.headline), element("ul", {}, ...points));
}

function drawLosses(run) {
  if (!run.epochs.length) return sayInstead("losses", "No epoch has finished yet.");
  const layout = { annotations: [], showlegend: true };
  const traces = run.tasks.flatMap((task, i) => {
    const n = i ? i + 1 : "", place = panel(i, run.tasks.length);
    const train = run.metrics[`train/loss_${task}`], val = run.metrics[`val/loss_${task}`];
    layout[`xaxis${n}`] = epochAxis(run.epochs, { domain: place.x, anchor: `y${n}` });
    layout[`yaxis${n}`] = axis("", [...train, ...val], { domain: place.y, anchor: `x${n}` });
    layout.annotations.push(title(`${task} loss`, place, taskColour(run.tasks, task)));
    return lossTraces(run, task, train, val).map((trace) => ({ ...trace, xaxis: `x${n}`, yaxis: `y${n}` }));
  });
  draw("losses", withLegend(traces), layout);
}

function lossTraces(run, task, train, val) {
  const color = taskColour(run.tasks, task), stops = run.stops[task];
  const base = { type: "scatter", hovertemplate: "epoch %{x}: %{y:.4g}<extra>%{fullData.name}</extra>" };
  const mark = (name, epoch, marker) => ({ ...base, name, mode: "markers", marker, x: epoch ? [epoch] : [], y: epoch ? [val[run.epochs.indexOf(epoch)]] : [] });
  return [
    { ...base, name: "training", mode: "lines+markers", x: run.epochs, y: train, line: { color, width: 2, dash: "dot" }, marker: { size: 4 } },
    { ...base, name: "validation", mode: "lines+markers", x: run.epochs, y: val, line: { color, width: 3 }, marker: { size: 5 } },
    mark("best epoch", stops.best, { symbol: "star", size: 16, color, line: { color: "#fff", width: 1 } }),
    mark("patience used up", stops.exhausted, { symbol: "triangle-down", size: 13, color: "#fff", line: { color, width: 2 } }),
  ];
}

function drawPlain(run) {
  const shown = [["val/px_median", "median error, px of 384", {}, ".4g"], ["val/done_accuracy", "share of right answers", SHARE, ".1%"]];
  const known = shown.filter(([name]) => run.metrics[name]);
  if (!known.length) return sayInstead("plain", "Nothing has been recorded in these units.");
  const layout = { annotations: [], showlegend: false };
  const traces = known.map(([name, unit, look, digits], i) => {
    const n = i ? i + 1 : "", place = panel(i, known.length);
    const color = taskColour(run.tasks, run.tasks.find((t) => name.includes(`/${t}_`)) ?? run.tasks[0]);
    layout[`xaxis${n}`] = epochAxis(run.epochs, { domain: place.x, anchor: `y${n}` });
    layout[`yaxis${n}`] = axis("", run.metrics[name], { domain: place.y, anchor: `x${n}`, ...look });
    layout.annotations.push(title(unit, place, color));
    return { type: "scatter", mode: "lines+markers", x: run.epochs, y: run.metrics[name], xaxis: `x${n}`, yaxis: `y${n}`,
      line: { color, width: 2 }, hovertemplate: `epoch %{x}: %{y:${digits}}<extra></extra>` };
  });
  draw("plain", traces, layout);
}

/** The metrics whose names begin alike, one line each, in their task's colour. */
function drawLines(run, id, beginning, unit, otherwise) {
  const names = Object.keys(run.metrics).filter((name) => name.startsWith(beginning) && run.metrics[name].some(isNumber));
  if (!names.length) return sayInstead(id, otherwise);
  const traces = names.map((name, i) => {
    const of = name.slice(beginning.length), color = run.tasks.includes(of) ? taskColour(run.tasks, of) : INK;
    return { type: "scatter", mode: "lines+markers", name: of || unit, x: run.epochs, y: run.metrics[name], line: { color, width: 2, dash: i % 2 ? "dash" : "solid" },
      hovertemplate: "epoch %{x}: %{y:.4g}<extra>%{fullData.name}</extra>" };
  });
  const level = id === "cosine" ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: "#8f9aab", width: 1 } }] : [];
  draw(id, traces, { xaxis: epochAxis(run.epochs), yaxis: axis(unit, names.flatMap((name) => run.metrics[name])), shapes: level,
    showlegend: names.length > 1, margin: { l: 40, r: 8, t: 12, b: 40 } });
}

function showPictures(pictures) {
  if (!pictures.length) return fill("pictures", "There are no sample pictures in this folder.");
  fill("pictures", ...pictures.map((p) => element("figure", {}, element("figcaption", {}, `epoch ${p.epoch}`),
    element("img", { src: p.src, alt: `Sample pictures of epoch ${p.epoch}` }))));
}
