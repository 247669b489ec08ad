// A room's page: the rooms that it has opened, of which it shows one. All share one socket.

import { showError, startComposer } from "./composer.js";
import { element, fillIn, fromTemplate } from "./html.js";
import { Room } from "./room.js";
import { Rooms, socket } from "./socket.js";

const log = element("log");
const STATES = {
  connecting: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
  closed: "Not connected. Reload the page.",
};
const isSeen = () => document.visibilityState === "visible";
const open = new Map(); // rooms, by name
let room; // the one that is shown
const rooms = new Rooms(showRooms, (name) => name === room?.name && isSeen());

// -- the room that is shown -------------------------------------------------------------------------------------------

function enter(name) {
  room?.typed(false);
  room = open.get(name);
  if (room === undefined) {
    room = new Room(name, {
      changed: () => name === room?.name && showRoom(),
      news: (text) => name === room?.name && (element("news").textContent = text),
      refused: (text, why) => showError(name === room?.name ? why : `#${name}: ${why}`),
    });
    open.set(name, room);
  }
  log.replaceChildren(room.log.list, room.log.waiting);
  element("room-name").textContent = name;
  element("text").placeholder = `Message #${name}`;
  element("text-label").textContent = `Message to #${name}`;
  element("sign-in")?.setAttribute("href", `/sign-in/?next=${location.pathname}`);
  showError("");
  showRoom();
  showRooms();
  toEnd();
}

function showRoom() {
  element("state").dataset.state = room.state;
  element("state-text").textContent = STATES[room.state];
  element("chat").classList.toggle("away", room.state !== "connected");
  log.setAttribute("aria-live", room.state === "connected" ? "polite" : "off"); // loaded messages are no news
  element("resumed").textContent = room.state === "connected" ? room.resumed : "";
  element("empty").hidden = room.state !== "connected" || !room.log.isEmpty;
  const { typing } = room;
  element("typing").textContent = typing.length ? `${typing.join(", ")} ${typing.length > 1 ? "are" : "is"} typing…` : "";
  if (room.me === null) return;
  const others = room.people.filter(({ id }) => id !== room.me.id).sort((a, b) => a.name.localeCompare(b.name));
  element("people").replaceChildren(...[room.me, ...others].map(personItem));
  element("people-count").textContent = others.length + 1;
  readAll();
}

function personItem(person) {
  const item = fromTemplate("person-template");
  fillIn(item, person);
  if (person.id !== room.me.id) item.querySelector(".you").remove();
  return item;
}

let marked; // the last message that the server was told is read

function readAll() {
  if (room.state !== "connected" || !isSeen()) return;
  rooms.read(room.name);
  if (room.log.newest !== marked) room.read();
  marked = room.log.newest;
}

document.addEventListener("visibilitychange", () => showRoom());

// -- scrolling --------------------------------------------------------------------------------------------------------

let follows = true; // the reader is at the end

function toEnd() {
  log.scrollTop = log.scrollHeight;
  follows = true;
  element("newest").hidden = true;
}

log.addEventListener("scroll", () => {
  follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  if (follows) element("newest").hidden = true;
});
const grown = () => (follows ? toEnd() : (element("newest").hidden = false));
new MutationObserver(grown).observe(log, { childList: true, subtree: true });
new ResizeObserver(() => follows && toEnd()).observe(log);
element("newest").addEventListener("click", () => {
  toEnd();
  element("text").focus();
});

// -- the list of rooms ------------------------------------------------------------------------------------------------

function showRooms() {
  const all = rooms.list();
  const missing = [...open.keys()].filter((name) => !all.some((each) => each.name === name));
  all.push(...missing.map((name) => ({ name, people: [], unread: 0 })));
  all.sort((a, b) => a.name.localeCompare(b.name)); // a click must not miss a room that has just moved
  element("rooms").replaceChildren(...all.map(roomItem));
  const unread = all.reduce((sum, { unread }) => sum + unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}#${room?.name ?? ""} · Trio chat`;
}

function roomItem({ name, people, unread }) {
  const item = fromTemplate("room-template");
  const link = item.querySelector("a");
  link.href = `/chat/${name}/`;
  item.querySelector(".name").textContent = name;
  item.querySelector(".here").textContent = people.length || "";
  item.querySelector(".unread").textContent = unread || "";
  if (name === room?.name) link.setAttribute("aria-current", "page");
  return item;
}

element("rooms").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  if (link.pathname !== location.pathname) history.pushState(null, "", link.pathname);
  enterAddressed();
});
addEventListener("popstate", enterAddressed);

function enterAddressed() {
  enter(location.pathname.split("/").at(-2));
}

// -- restart ----------------------------------------------------------------------------------------------------------

element("restart")?.addEventListener("submit", (event) => {
  event.preventDefault(); // without scripts the form would leave the page
  fetch(event.target.action, { method: "POST", body: new FormData(event.target) }).catch(console.error);
});

startComposer({
  send(text) {
    room.send(text);
    toEnd();
  },
  typed: (isTyping) => room.typed(isTyping),
});
enterAddressed();
socket.connect();
