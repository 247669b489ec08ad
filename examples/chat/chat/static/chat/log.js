// The list of a room's messages, in the order of their ids. A message that comes twice is shown once.

import { fillIn, fromTemplate } from "./html.js";

const MOST_SHOWN = 500;
const JOIN_WITHIN = 5 * 60_000; // milliseconds; messages of one person within this time stand together

export class Log {
  /** The items of the messages, and of those that wait to be sent. */
  list = document.createElement("ol");
  waiting = document.createElement("ol");
  me = null;
  #shown = new Map(); // the message and its item, by id

  constructor() {
    this.list.className = "messages";
    this.waiting.className = "waiting";
  }

  get isEmpty() {
    return this.#shown.size + this.waiting.childElementCount === 0;
  }

  /** The highest id; undefined if there is none. */
  get newest() {
    return this.list.lastElementChild && Number(this.list.lastElementChild.dataset.id);
  }

  ids() {
    return new Set(this.#shown.keys());
  }

  messages() {
    return [...this.#shown.values()].map(({ message }) => message);
  }

  /** Show a message; returns whether it is new. */
  add(message) {
    if (this.#shown.has(message.id)) return false;
    const item = messageItem(message, this.me);
    this.#shown.set(message.id, { message, item });
    // Almost always it goes to the end. Two that were stored at the same time may arrive in the wrong order.
    let after = this.list.lastElementChild;
    while (after && Number(after.dataset.id) > message.id) after = after.previousElementSibling;
    this.list.insertBefore(item, after ? after.nextElementSibling : this.list.firstElementChild);
    if (this.#shown.size > MOST_SHOWN) this.#remove(Number(this.list.firstElementChild.dataset.id));
    [this.list.firstElementChild, item, item.nextElementSibling].forEach(joinUp);
    return true;
  }

  /** Show the latest messages. If none was shown `before`, some between may be missing: then those of before go. */
  replace(messages, before) {
    if (!messages.some(({ id }) => before.has(id))) before.forEach((id) => this.#remove(id));
    for (const message of messages) this.add(message);
  }

  addWaiting(id, text) {
    if ([...this.waiting.children].some((item) => item.dataset.push === id)) return;
    const item = fromTemplate("waiting-template");
    item.dataset.push = id;
    item.querySelector(".text").textContent = text;
    this.waiting.append(item);
  }

  removeWaiting(id) {
    [...this.waiting.children].find((item) => item.dataset.push === id)?.remove();
  }

  #remove(id) {
    this.#shown.get(id)?.item.remove();
    this.#shown.delete(id);
  }
}

function messageItem({ id, who, when, text }, me) {
  const item = fromTemplate("message-template");
  const time = new Date(when);
  fillIn(item, who);
  Object.assign(item.dataset, { id, author: who.id, when: time.getTime() });
  item.classList.toggle("mine", who.id === me.id);
  item.querySelector(".text").textContent = text;
  Object.assign(item.querySelector("time"), {
    dateTime: when,
    title: time.toLocaleString(),
    textContent: time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }),
  });
  return item;
}

/** Show the day above the first message of a day; join messages of one person that follow each other. */
function joinUp(item) {
  if (!item) return;
  const before = item.previousElementSibling;
  const day = dayName(new Date(Number(item.dataset.when)));
  const isNewDay = !before || dayName(new Date(Number(before.dataset.when))) !== day;
  const heading = item.querySelector(".day");
  heading.hidden = !isNewDay;
  heading.textContent = isNewDay ? day : "";
  item.classList.toggle(
    "follows",
    !isNewDay && before.dataset.author === item.dataset.author && item.dataset.when - before.dataset.when < JOIN_WITHIN,
  );
}

function dayName(date) {
  const yesterday = new Date();
  yesterday.setDate(yesterday.getDate() - 1);
  if (date.toDateString() === new Date().toDateString()) return "Today";
  if (date.toDateString() === yesterday.toDateString()) return "Yesterday";
  return date.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long", year: "numeric" });
}
