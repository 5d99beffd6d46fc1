// The page of a search: facts, picks, figures, table and the selected trial.

// epoch: where the chosen outcome of the selected trial ends, if one of its outcomes was clicked
const view = { selected: null, epoch: null, sort: "trial", descending: false, heat: "all" };
let search = null;

function showSearch(fresh) {
  search = fresh;
  if (!search.trials.some((trial) => trial.name === view.selected)) view.selected = firstSelected();
  const counts = {};
  for (const trial of search.trials) counts[trial.state] = (counts[trial.state] ?? 0) + 1;
  $("name").textContent = search.name;
  $("state").textContent = search.state;
  $("state").className = `chip ${search.state}`;
  $("facts").textContent = [
    `${search.trials.length} of ${search.num_samples} trials` + (search.trials.length ? `: ${Object.entries(counts).map(([state, n]) => `${n} ${state}`).join(", ")}` : ""),
    `up to ${search.epochs} epochs each`, `searcher ${search.searcher}`, `trial scheduler ${search.trial_scheduler}`,
    search.patience === "replay" ? "patience read off each trial's history" : "patience drawn for each trial",
  ].join(" · ");
  $("path").textContent = search.path;
  showPicks();
  showSelection();
  drawImportance(search);
}

/** What depends on the selected trial. */
function showSelection() {
  drawFront(search, view.selected, select);
  drawParallel(search, view.selected, select);
  drawCurves(search, view.selected, select);
  drawHeat(search, view.selected, view.heat);
  showTable();
  showTrial();
}

function firstSelected() {
  const pick = search.picks.knee ?? Object.values(search.picks)[0];
  if (pick !== undefined) return search.outcomes[pick].trial;
  const begun = search.trials.find((trial) => trial.epochs.length) ?? search.trials[0];
  return begun ? begun.name : null;
}

function select(name, epoch = null) {
  view.selected = name;
  view.epoch = epoch;
  showSelection();
}

function showPicks() {
  const cards = Object.entries(search.picks).map(([name, i]) => {
    const o = search.outcomes[i];
    const losses = search.tasks.map((task) => `${task} ${number(o.best[task])}`).join(", ");
    const why = name === "knee" ? "Knee: the best compromise of losses and cost" : `Best ${name.slice("best_".length)}`;
    return element("button", { class: "card", "data-pick": i, type: "button" }, element("span", { class: "muted" }, why),
      element("b", {}, `trial ${o.trial}`), `${losses}, ${seconds(o.cost)}`, element("span", { class: "muted" }, ` ${pairsText(search, o)}`));
  });
  fill("picks", ...cards);
}

const COLUMNS = () => [
  { name: "trial", of: (t) => t.name, text: true },
  { name: "state", of: (t) => t.state, text: true },
  ...search.parameters.map((p, i) => ({ name: p.key, of: (t) => t.values[i] })),
  ...search.tasks.map((task) => ({ name: `best ${task}`, of: (t) => t.best[task] })),
  { name: "cost, worker-s", of: (t) => t.cost },
  { name: "epochs", of: (t) => t.epochs.at(-1) ?? 0 },
  { name: "front", of: (t) => (search.outcomes.some((o) => o.front && o.trial === t.name) ? "yes" : "no"), text: true },
  { name: "reason", of: (t) => t.reason, text: true },
];

/** A heading that may be broken after its dots. */
const broken = (name) => name.split(/(?<=\.)/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));

/** Rows in the chosen order; those without a value are last, either way round. */
function sorted(column) {
  const turn = view.descending ? -1 : 1;
  const compare = (a, b) => (isNumber(a) && isNumber(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  return [...search.trials].sort((s, t) => {
    const [a, b] = [column.of(s) ?? null, column.of(t) ?? null];
    if (a === null || b === null) return (a === null) - (b === null);
    return turn * compare(a, b);
  });
}

function showTable() {
  const table = $("trials"), columns = COLUMNS();
  const headings = columns.map((c) => {
    const order = c.name === view.sort ? (view.descending ? "descending" : "ascending") : "none";
    return element("th", { scope: "col", class: c.text && "text", "aria-sort": order }, element("button", { type: "button", "data-column": c.name }, ...broken(c.name)));
  });
  const column = columns.find((c) => c.name === view.sort) ?? columns[0];
  const rows = sorted(column).map((trial) => element("tr", { tabindex: 0, "data-trial": trial.name, "aria-selected": trial.name === view.selected },
    ...columns.map((c) => cell(c, trial))));
  const focus = table.contains(document.activeElement) ? document.activeElement.dataset : {};
  table.tHead.replaceChildren(element("tr", {}, ...headings));
  table.tBodies[0].replaceChildren(...rows);
  const again = [...table.querySelectorAll("[data-trial], [data-column]")];
  again.find((e) => (focus.trial && e.dataset.trial === focus.trial) || (focus.column && e.dataset.column === focus.column))?.focus({ preventScroll: true });
}

function cell(column, trial) {
  const value = column.of(trial);
  if (column.name === "state") return element("td", { class: "text" }, element("span", { class: `chip ${value}` }, value));
  if (column.name === "reason") return element("td", { class: "text reason" }, value ?? "");
  return element("td", { class: column.text && "text" }, number(value));
}

function showTrial() {
  const trial = search.trials.find((t) => t.name === view.selected);
  if (!trial) return fill("selected", "There is no trial yet.");
  const facts = [
    ...search.parameters.map((p, i) => [p.key, number(trial.values[i])]),
    ...search.tasks.map((task) => [`best loss, ${task}`, number(trial.best[task]) + (trial.best_epoch[task] ? ` (epoch ${trial.best_epoch[task]})` : "")]),
    ["cost", seconds(trial.cost)], ["epochs", String(trial.epochs.at(-1) ?? 0)],
  ];
  fill("selected",
    element("p", {}, element("b", { id: "selected-name" }, `trial ${trial.name}`), element("span", { class: `chip ${trial.state}` }, trial.state)),
    trial.reason ? element("p", {}, trial.reason) : null,
    ...showOutcome(trial),
    element("dl", {}, ...facts.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)])),
    element("h3", {}, "Configuration"), element("pre", { id: "trial-config", tabindex: 0 }, trial.config));
}

/** What was clicked: one of the trial's outcomes, where patience may differ from that trained. */
function showOutcome(trial) {
  const o = search.outcomes.find((one) => one.trial === trial.name && one.epoch === view.epoch);
  if (!o) return [];
  const losses = search.tasks.map((task) => `${task} ${number(o.best[task])}`).join(", ");
  return [element("h3", {}, "Chosen outcome"), element("p", { id: "outcome" },
    `${endText(search, o)}: ${losses}, ${seconds(o.cost)}.`), element("h3", {}, "As trained")];
}

function listenToSearch() {
  $("trials").addEventListener("click", (event) => {
    const heading = event.target.closest("button[data-column]"), row = event.target.closest("tr[data-trial]");
    if (heading) {
      view.descending = view.sort === heading.dataset.column && !view.descending;
      view.sort = heading.dataset.column;
      showTable();
    } else if (row) select(row.dataset.trial);
  });
  $("trials").addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-trial]");
    if (row && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      select(row.dataset.trial);
    }
  });
  $("picks").addEventListener("click", (event) => {
    const card = event.target.closest("[data-pick]");
    if (card) select(search.outcomes[card.dataset.pick].trial, search.outcomes[card.dataset.pick].epoch);
  });
  $("heat-choice").addEventListener("change", (event) => {
    view.heat = event.target.value;
    drawHeat(search, view.selected, view.heat);
  });
}
