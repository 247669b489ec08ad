// A board's page: one socket with two topics, `board:…` for the changes and `cursors:…` for the people.
//
// Text from people only becomes text nodes (textContent), so that HTML in it stays text.

import { Socket } from "topics";
import { Cards } from "./cards.js";
import { Dragging } from "./dragging.js";
import { People } from "./people.js";

const element = (id) => document.getElementById(id);
const root = element("board");
const { slug, me } = root.dataset;

const socket = new Socket("/socket");
const topic = socket.topic(`board:${slug}`);
const cursors = socket.topic(`cursors:${slug}`);

const cards = new Cards(root);
const people = new People(cursors, root, cards, me);
const dragging = new Dragging(root, cards, {
  mayMove: () => root.dataset.mayWrite === "true",
  hold: (id) => people.hold(id),
  drop: move,
  waiting: (id) => latest.get(id)?.wish,
  say: (text) => (element("announcements").textContent = text),
});

// -- the topic --------------------------------------------------------------------------------------------------------

topic.onJoin((reply) => {
  root.dataset.mayWrite = reply.may_write;
  element("reading").hidden = reply.may_write;
  if (!reply.may_write) dragging.cancel();
  cards.reset(reply);
  dragging.check();
  showState();
});
topic.on("change", (change) => {
  cards.apply(change);
  dragging.check();
});
topic.on("reshaped", () => {
  isOld = true;
  reloadIfOld();
});
topic.onError(showState);
topic.onClose((error) => {
  root.dataset.mayWrite = "false";
  dragging.cancel();
  complain(error?.response?.message ?? "This page is no longer connected. Load it again.");
  showState();
});

// -- pushes: at once on this page, and then in the database -----------------------------------------------------------

let waiting = 0;
let isOld = false; // the board has other columns than this page
const latest = new Map(); // card: its last move, {wish, done}, while it is not confirmed

// A card's moves go one after the other: each says the version of the card that this page has seen.
async function move(id, wish) {
  const before = latest.get(id)?.done;
  const done = before ? before.then((isDone) => isDone && send(id, wish)) : send(id, wish);
  latest.set(id, { wish, done });
  cards.wish(id, wish);
  await done;
  if (latest.get(id)?.wish === wish) latest.delete(id);
  cards.unwish(id, wish); // it is the truth now, or it snaps back
}

function send(id, { column, before }) {
  const seen = cards.get(id)?.version ?? 0;
  return push("card.move", { card: id, column, before, seen });
}

// Typed or moved while offline, it waits; it is sent again until it is answered, and the server handles it once.
async function push(event, payload) {
  waiting += 1;
  showState();
  try {
    const { revision } = await topic.push(event, payload, { once: true });
    await cards.reached(revision);
    return true;
  } catch (error) {
    const isKnown = error.code !== "timeout" && error.code !== "lost";
    const reason = `${isKnown ? "That was not done" : "That may not have been done"}: ${error.message}.`;
    complain(error.response?.message ?? reason);
    return false;
  } finally {
    waiting -= 1;
    showState();
    reloadIfOld();
  }
}

function reloadIfOld() {
  if (isOld && !waiting) location.reload();
}

addEventListener("beforeunload", (event) => waiting && event.preventDefault());

for (const form of document.querySelectorAll(".add")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { title } = form.elements;
    const text = title.value.trim();
    if (!text) return;
    title.value = "";
    const column = Number(form.closest("[data-column]").dataset.column);
    if (!(await push("card.add", { column, title: text })) && !title.value) title.value = text;
  });
}

// -- announcements ----------------------------------------------------------------------------------------------------

function showState() {
  const isThere = topic.state === "joined";
  const isOver = topic.state === "closed";
  element("state").dataset.state = isThere ? "connected" : isOver ? "closed" : "reconnecting";
  const more = waiting && !isThere ? ` ${waiting} to be sent` : "";
  element("state-text").textContent = isThere ? "Live" : isOver ? "Closed" : `Reconnecting…${more}`;
}

let hiding;

function complain(text) {
  element("alert").textContent = text;
  element("alert").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => (element("alert").hidden = true), 8000);
}

socket.onState(() => topic.state !== "closed" && showState());
topic.join().catch(() => {}); // onClose tells it
cursors.join().catch(() => {});
socket.connect();
