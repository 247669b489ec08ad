// A room's page: one WebSocket, and the display of its events.
//
// Text from other people only becomes text nodes (textContent), so that HTML in it stays text.

const element = (id) => document.getElementById(id);
const chat = element("chat");
const log = element("log");
const composer = element("composer");
const input = element("text");

// -- the connection ---------------------------------------------------------------------------------------------------

const FIRST_DELAY = 500; // milliseconds; doubled after each failure
const LONGEST_DELAY = 15_000;

const address = new URL(chat.dataset.socket, location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";

let socket;
let failures = 0;
let retry; // the timer of the next attempt, if one is set
let welcomed; // whether this socket has got its welcome

function connect() {
  clearTimeout(retry);
  retry = undefined;
  welcomed = false;
  socket = new WebSocket(address);
  socket.onmessage = (event) => {
    const { kind, ...rest } = JSON.parse(event.data);
    handlers[kind]?.(rest);
  };
  socket.onclose = () => {
    showState("reconnecting", "Reconnecting…");
    // The jitter keeps the pages from reconnecting at the same moment.
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures) * (0.5 + Math.random() / 2);
    failures += 1;
    retry = setTimeout(connect, delay);
  };
}

// Do not wait if the network is back, or the page is looked at.
const connectNow = () => retry !== undefined && connect();
addEventListener("online", connectNow);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && connectNow());

function showState(state, text) {
  element("state").dataset.state = state;
  element("state-text").textContent = text;
  element("send").disabled = state !== "connected";
}

// The handlers of the server's events, by kind; see consumers.py.
const handlers = {
  welcome({ you, people: present, history }) {
    failures = 0;
    me = you;
    showState("connected", "Connected");
    people.clear();
    for (const person of present) people.set(person.id, person);
    showPeople();
    // After a long absence, messages between the shown ones and the history may be missing: then start anew.
    if (!history.some(({ id }) => shown.has(id))) forgetMessages();
    for (const message of history) showMessage(message);
    element("empty").hidden = shown.size > 0;
    log.setAttribute("aria-live", "polite"); // screen readers read messages from now on, and not the history
    // A later welcome on the same socket means that messages to this page were lost. Its own messages were not.
    if (!welcomed) resend();
    welcomed = true;
  },
  message(message) {
    showMessage(message);
    element("empty").hidden = true;
  },
  joined({ who }) {
    if (!people.has(who.id)) announce(`${who.name} has come`);
    people.set(who.id, who);
    showPeople();
  },
  left({ who }) {
    if (people.delete(who.id)) announce(`${who.name} has left`);
    showPeople();
  },
  error({ error }) {
    unconfirmed.shift();
    showError(error);
  },
};

// -- people -----------------------------------------------------------------------------------------------------------

let me; // this page's person; set by the welcome
const people = new Map(); // by id

function showPeople() {
  const others = [...people.values()].filter(({ id }) => id !== me.id);
  others.sort((a, b) => a.name.localeCompare(b.name));
  element("people").replaceChildren(...[me, ...others].map(personItem));
  element("people-count").textContent = others.length + 1;
}

function personItem(person) {
  const item = element("person-template").content.firstElementChild.cloneNode(true);
  fillIn(item, person);
  if (person.id !== me.id) item.querySelector(".you").remove();
  return item;
}

function fillIn(item, { id, name, member }) {
  const avatar = item.querySelector(".avatar");
  avatar.textContent = initials(name);
  avatar.style.setProperty("--hue", hue(id));
  item.querySelector(".name").textContent = name;
  if (!member) item.querySelector(".tick").remove();
}

function initials(name) {
  const words = name.split(/[\s._@+-]+/u).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => [...word][0]) : [...name].slice(0, 1);
  return letters.join("").toUpperCase();
}

function hue(id) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return Math.round((hash * 137.508) % 360); // the golden angle: neighbours look different
}

function announce(text) {
  element("news").textContent = text;
}

// -- messages ---------------------------------------------------------------------------------------------------------

const MOST_SHOWN = 500;
const JOIN_WITHIN = 5 * 60_000; // milliseconds; messages of one person within this time stand together

const shown = new Map(); // the item of each message, by id; a message that comes twice is shown once

function showMessage(message) {
  confirm(message);
  if (shown.has(message.id)) return;
  const item = messageItem(message);
  const wasAtEnd = atEnd();
  shown.set(message.id, item);
  // A message almost always goes to the end. Two that were stored at the same time may arrive in the wrong order.
  let after = log.lastElementChild;
  while (after && Number(after.dataset.id) > message.id) after = after.previousElementSibling;
  log.insertBefore(item, after ? after.nextElementSibling : log.firstElementChild);
  if (shown.size > MOST_SHOWN) {
    shown.delete(Number(log.firstElementChild.dataset.id));
    log.firstElementChild.remove();
  }
  joinUp(log.firstElementChild);
  joinUp(item);
  joinUp(item.nextElementSibling);
  if (wasAtEnd || message.who.id === me.id) toEnd();
  else element("newest").hidden = false;
}

function forgetMessages() {
  shown.clear();
  log.replaceChildren();
}

function messageItem({ id, who, when, message }) {
  const item = element("message-template").content.firstElementChild.cloneNode(true);
  const time = new Date(when);
  fillIn(item, who);
  Object.assign(item.dataset, { id, author: who.id, when: time.getTime() });
  item.classList.toggle("mine", who.id === me.id);
  item.querySelector(".text").textContent = message;
  Object.assign(item.querySelector("time"), {
    dateTime: when,
    title: time.toLocaleString(),
    textContent: time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }),
  });
  return item;
}

// Show the day above the first message of a day; join messages of one person that follow each other.
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

const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;

function toEnd() {
  log.scrollTop = log.scrollHeight;
  element("newest").hidden = true;
}

log.addEventListener("scroll", () => atEnd() && (element("newest").hidden = true), { passive: true });
new ResizeObserver(() => element("newest").hidden && toEnd()).observe(log);
element("newest").addEventListener("click", () => {
  toEnd();
  input.focus();
});

// -- writing ----------------------------------------------------------------------------------------------------------

// Texts that were sent, and have not come back. After a broken connection the server may have stored them or not. The
// history after the reconnect tells: only texts that are not in it are sent again.
const unconfirmed = [];

// Python strips these control characters as blanks, too. The text that comes back must equal the text that was sent.
const BLANKS_AROUND = /^[\s\x1c-\x1f\x85]+|[\s\x1c-\x1f\x85]+$/g;

function send(text) {
  unconfirmed.push(text);
  socket.send(JSON.stringify({ message: text }));
}

function confirm({ id, who, message }) {
  const position = who.id === me.id && !shown.has(id) ? unconfirmed.indexOf(message) : -1;
  if (position >= 0) unconfirmed.splice(position, 1);
}

function resend() {
  for (const text of unconfirmed.splice(0)) send(text);
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.replace(BLANKS_AROUND, "");
  if (!text || element("send").disabled) return;
  showError("");
  send(text);
  input.value = "";
  inputChanged();
  input.focus();
});

input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});

input.addEventListener("input", inputChanged);

function inputChanged() {
  input.style.height = "auto"; // grow with the text, up to what the style sheet allows
  input.style.height = `${input.scrollHeight}px`;
  const left = input.maxLength - input.value.length;
  element("left").textContent = left <= 200 ? `${left} left` : "";
}

function showError(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

connect();
if (matchMedia("(pointer: fine)").matches) input.focus(); // on a phone it would bring up the keyboard
