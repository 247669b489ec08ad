"use strict";

// All pictures come over the WebSocket: the whole list after each connect, then each change. A click only tells the
// server; the resulting changes come over the WebSocket, too, and to every other page.

const FIRST_WAIT = 500, LONGEST_WAIT = 10000;
const MOST_ATTEMPTS = Number(document.body.dataset.attempts);
const STATES = {
  waiting: () => "In the queue",
  working: ({ attempt }) => (attempt > 1 ? `Attempt ${attempt} of ${MOST_ATTEMPTS}` : "Being made"),
  retrying: ({ attempt }) => `Attempt ${attempt} of ${MOST_ATTEMPTS} failed; tries again`,
  done: ({ attempt }) => (attempt > 1 ? `Done, with attempt ${attempt}` : "Done"),
  failed: () => "Cannot be made",
  dead: ({ attempt }) => `Given up after ${attempt} attempts`,
};
const COUNTED = { waiting: "in the queue", working: "being made", retrying: "to be tried again", done: "done", failed: "failed" };

const by = (id) => document.getElementById(id);
const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
const known = new Map(); // pictures by id
let wait = FIRST_WAIT;

// -- showing ----------------------------------------------------------------------------------------------------------

function show(picture) {
  const before = known.get(picture.id);
  if (before && before.version > picture.version) return; // this event is older than the picture's state
  known.set(picture.id, picture);
  const item = by(`picture-${picture.id}`) || made(picture);
  item.dataset.state = picture.state;
  item.toggleAttribute("data-again", picture.attempt > 1);
  item.querySelector(".status").textContent = STATES[picture.state](picture);
  const why = item.querySelector(".why");
  why.textContent = picture.why;
  why.hidden = !picture.why;
  item.querySelector("use").setAttribute("href", `#glyph-${picture.state}`);
  item.querySelectorAll(".attempts li").forEach((mark, number) => mark.classList.toggle("used", number < picture.attempt));
  const image = item.querySelector("img");
  image.hidden = picture.state !== "done";
  item.querySelector(".glyph").toggleAttribute("hidden", picture.state === "done");
  if (!image.hidden && image.getAttribute("src") !== picture.thumbnail) image.src = picture.thumbnail;
  const list = by(picture.state === "dead" ? "dead" : "pictures");
  if (item.parentElement !== list) list.prepend(item);
}

function made(picture) {
  const item = by("picture").content.firstElementChild.cloneNode(true);
  item.id = `picture-${picture.id}`;
  const name = item.querySelector(".name");
  name.textContent = name.title = picture.name;
  item.querySelector(".attempts").append(...Array.from({ length: MOST_ATTEMPTS }, () => document.createElement("li")));
  for (const button of item.querySelectorAll("[data-action]")) {
    button.setAttribute("aria-label", `${button.textContent}: ${picture.name}`);
    button.onclick = () => post(`/pictures/${picture.id}/${button.dataset.action}/`, new FormData());
  }
  return item;
}

function remove(id) {
  known.delete(id);
  by(`picture-${id}`)?.remove();
}

function replaceAll(pictures) {
  const there = new Set(pictures.map(({ id }) => id));
  [...known.keys()].filter((id) => !there.has(id)).forEach(remove);
  pictures.forEach(show);
}

function summarise() {
  const states = [...known.values()].map(({ state }) => state);
  by("dead-letters").hidden = !states.includes("dead");
  by("empty").hidden = states.some((state) => state !== "dead");
  by("counts").textContent = Object.entries(COUNTED)
    .map(([state, words]) => [states.filter((each) => each === state).length, words])
    .filter(([count]) => count)
    .map(([count, words]) => `${count} ${words}`)
    .join(" · ");
}

function tell(word, text) {
  by("state").dataset.state = word;
  by("state").textContent = text;
}

function complain(text) {
  by("problem").textContent = text;
  by("problem").hidden = !text;
}

// -- asking the server ------------------------------------------------------------------------------------------------

async function post(path, form) {
  form.set("csrfmiddlewaretoken", token);
  try {
    // After a success the server redirects to this page, which need not be loaded again.
    const options = { method: "POST", body: form, redirect: "manual", headers: { Accept: "application/json" } };
    const response = await fetch(path, options);
    if (response.type === "opaqueredirect") return true;
    const json = response.headers.get("Content-Type")?.startsWith("application/json");
    complain(json ? (await response.json()).error : `The server answered with ${response.status}.`);
  } catch {
    complain("The server cannot be reached. Try again in a moment.");
  }
  return false;
}

async function upload(files) {
  complain("");
  for (const file of files) {
    const form = new FormData();
    form.set("picture", file);
    if (!(await post("/", form))) return;
  }
}

function listen() {
  const drop = by("upload");
  by("files").onchange = async ({ target }) => {
    const files = [...target.files];
    target.value = ""; // so that the same file can be chosen again
    await upload(files);
  };
  drop.ondragover = (event) => {
    event.preventDefault();
    drop.classList.add("over");
  };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    upload(event.dataTransfer.files);
  };
  by("samples").onsubmit = (event) => {
    event.preventDefault();
    complain("");
    post(event.target.action, new FormData(event.target, event.submitter));
  };
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws/gallery/`);
  socket.onopen = () => {
    wait = FIRST_WAIT;
    tell("connected", "Live");
  };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.all) replaceAll(event.all);
    if (event.changed) show(event.changed);
    if (event.removed) remove(event.removed);
    summarise();
  };
  socket.onclose = () => {
    tell("connecting", "Connecting…");
    setTimeout(connect, wait * (0.5 + Math.random() / 2));
    wait = Math.min(2 * wait, LONGEST_WAIT);
  };
}

listen();
connect();
