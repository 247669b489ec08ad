// The front page: all rooms, with their people and the numbers of unread messages.

import { ago, element, fromTemplate, paint } from "./html.js";
import { Rooms, socket } from "./socket.js";

const FACES = 4;
const rooms = new Rooms(show);

function show() {
  const all = rooms.list();
  // Keep the item of each room: a click or the focus must not get lost.
  const items = new Map([...element("rooms").children].map((item) => [item.dataset.room, item]));
  element("rooms").replaceChildren(...all.map((room) => roomItem(room, items.get(room.name))));
  element("no-rooms").hidden = rooms.me === null || all.length > 0;
  element("room-names").replaceChildren(...all.map(({ name }) => new Option(name, name)));
}

function roomItem({ name, when, unread, people }, item = fromTemplate("room-template")) {
  item.dataset.room = name;
  item.querySelector("a").href = `/chat/${name}/`;
  item.querySelector(".name").textContent = name;
  item.querySelector(".unread").textContent = unread ? `${unread} new` : "";
  const faces = people.slice(0, FACES).map((person) => {
    const avatar = fromTemplate("face-template");
    paint(avatar, person);
    return avatar;
  });
  item.querySelector(".faces").replaceChildren(...faces);
  item.querySelector(".here").hidden = people.length === 0;
  item.querySelector(".here-text").textContent = `${people.length} here`;
  item.querySelector(".who").textContent = people.map(({ name }) => name).join(", ");
  item.querySelector(".when").textContent = people.length || !when ? "" : ago(when);
  return item;
}

setInterval(show, 30_000); // "3 minutes ago"
socket.connect();
