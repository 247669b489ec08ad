// A room's page: one WebSocket, and the messages that come over it.
//
// Text of other people only becomes text nodes (textContent), so that HTML in it stays text.

const element = (id) => document.getElementById(id);
const { room, user } = document.querySelector("main").dataset;
const messages = element("messages");
const composer = element("composer");
const send = composer.querySelector("button");

const FIRST_DELAY = 500; // milliseconds; doubled after each failure
const LONGEST_DELAY = 15_000;
const POLICY_VIOLATION = 1008; // the user has logged out

let socket;
let failures = 0;

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/ws/rooms/${room}/`);
  socket.onmessage = (event) => {
    const { messages: received = [], error } = JSON.parse(event.data);
    failures = 0;
    show(error ?? "");
    received.forEach(add);
    setState("connected");
  };
  socket.onclose = (event) => {
    if (event.code === POLICY_VIOLATION) return location.reload();
    setState("connecting");
    // The random part keeps the pages from coming back at the same moment.
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures) * (0.5 + Math.random() / 2);
    failures += 1;
    setTimeout(connect, delay);
  };
}

function setState(state) {
  element("state").textContent = state;
  send.disabled = state !== "connected";
}

function show(error) {
  element("error").textContent = error;
  element("error").hidden = !error;
}

function add({ id, who, when, text }) {
  if (element(`message-${id}`)) return; // after a reconnect the latest messages come again
  const item = document.createElement("li");
  item.id = `message-${id}`;
  item.classList.toggle("mine", who === user);
  const name = document.createElement("b");
  name.textContent = who;
  const time = document.createElement("time");
  time.dateTime = when;
  time.textContent = new Date(when).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const words = document.createElement("p");
  words.textContent = text;
  item.append(name, " ", time, words);
  const wasAtEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 80;
  messages.append(item);
  if (wasAtEnd || who === user) messages.scrollTop = messages.scrollHeight;
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (send.disabled) return;
  socket.send(JSON.stringify({ text: element("text").value }));
  composer.reset();
});

connect();
if (matchMedia("(pointer: fine)").matches) element("text").focus(); // on a phone it would bring up the keyboard
