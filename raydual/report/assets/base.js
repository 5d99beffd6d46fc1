// What every part of the page needs: elements, numbers, colours.

const TASK_COLOURS = ["#1f6feb", "#d9650b", "#8a3ffc", "#0b8a63"];
const INK = "#1c2430", FAINT = "#c3cad5", GRID = "#e9ecf1", FRONT = "#0b8a63";

const $ = (id) => document.getElementById(id);
const taskColour = (tasks, task) => TASK_COLOURS[tasks.indexOf(task) % TASK_COLOURS.length];

/** Makes an element; children that are texts stay texts, whatever they hold. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A number in four digits at most, as a reader would write it; a dash for none. */
function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(digits - 1).replace(/\.?0+e/, "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

const seconds = (value) => (value === null ? "–" : `${number(value)} worker-s`);
const percent = (value) => `${Number((value * 100).toFixed(value < 0.1 ? 1 : 0))} %`;
const isNumber = (value) => typeof value === "number";

/** Text for plotly, which reads tags and entities in what it shows. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** A long text with "…" in place of its middle. */
function shorten(text, most) {
  if (text.length <= most) return text;
  const end = Math.floor((most - 1) / 2);
  return `${text.slice(0, most - 1 - end)}…${text.slice(text.length - end)}`;
}

/** Puts texts and elements in the place of what is there, unless it already says the same. */
function fill(id, ...children) {
  const fresh = element("div", {}, ...children);
  if ($(id).innerHTML !== fresh.innerHTML) $(id).replaceChildren(...fresh.childNodes);
}
