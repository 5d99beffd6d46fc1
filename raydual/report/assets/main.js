// Shows the page, and asks for newer data where it is served live.

const EVERY_MS = 2000;
let tag = LIVE, shown = null;

function show(data) {
  shown = data;
  (data.kind === "search" ? showSearch : showRun)(data);
  return Promise.all([...drawing]);
}

function sayLive(text, broken) {
  $("live").hidden = false;
  $("live").textContent = text;
  $("live").className = `chip ${broken ? "failed" : "running"}`;
}

async function poll() {
  try {
    const answer = await fetch("data.json", { cache: "no-store", headers: { "If-None-Match": tag } });
    if (answer.status === 200) {
      await show(await answer.json());
      tag = answer.headers.get("ETag");
    } else if (answer.status !== 304) throw new Error(await answer.text());
    sayLive("live", false);
  } catch (error) {
    sayLive(`not live: ${error.message}`, true);
  }
  setTimeout(poll, EVERY_MS);
}

const first = JSON.parse($("data").textContent);
$("page").append($(`${first.kind}-page`).content.cloneNode(true));
if (first.kind === "search") listenToSearch();
show(first).then(() => performance.mark("drawn"));
phone.addEventListener("change", () => {
  clearFigures();
  show(shown);
});
if (LIVE !== null) {
  sayLive("live", false);
  setTimeout(poll, EVERY_MS);
}
