// The activity: the page has the latest changes, and an event stream brings the next ones, as HTML that the server has
// made and escaped. No framework: HTMX's extension `sse` would do the same.

const list = document.getElementById("changes");
const state = document.getElementById("state");
const MOST = 50;

const source = new EventSource(list.dataset.stream);
source.addEventListener("change", ({ data }) => {
  const item = fragment(data).querySelector("li");
  if (document.getElementById(item.id)) return; // the page had it already
  item.classList.add("fresh");
  list.prepend(item);
  while (list.children.length > MOST) list.lastElementChild.remove();
  showTimes();
});
source.addEventListener("stream.open", ({ data }) => {
  showState("connected", "Live");
  if (!JSON.parse(data).recovered) reload();
});
source.addEventListener("stream.gap", reload);
source.addEventListener("error", () => {
  const isOver = source.readyState === EventSource.CLOSED; // refused: the rights have changed
  showState(isOver ? "closed" : "reconnecting", isOver ? "Closed" : "Reconnecting…");
});

// Something may be missing: read the list anew.
async function reload() {
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const anew = fragment(await answer.text()).querySelector("#changes");
  if (anew) list.replaceChildren(...anew.children);
  showTimes();
}

function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

function showState(name, text) {
  state.dataset.state = name;
  document.getElementById("state-text").textContent = text;
}

function showTimes() {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of list.querySelectorAll("time:empty")) time.textContent = format.format(new Date(time.dateTime));
}

showTimes();
