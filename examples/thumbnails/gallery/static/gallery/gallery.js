"use strict";

// All pictures come over the WebSocket: the whole list after each connect, then each change.

const list = document.getElementById("pictures");
const state = document.getElementById("state");
const FIRST_WAIT = 500, LONGEST_WAIT = 10000;
let wait = FIRST_WAIT;

function show(picture) {
  const id = `picture-${picture.id}`;
  let item = document.getElementById(id);
  if (!item) {
    item = document.createElement("li");
    item.id = id;
    list.prepend(item);
  } else if (item.dataset.state !== "waiting" && picture.state === "waiting") {
    return; // this event is older than the picture's state
  }
  item.dataset.state = picture.state;
  const caption = document.createElement("p");
  caption.textContent = picture.state === "done" ? picture.name : `${picture.name}: ${picture.state}`;
  item.replaceChildren(caption);
  if (picture.state === "done") {
    const image = document.createElement("img");
    image.src = picture.thumbnail;
    image.alt = "";
    item.prepend(image);
  }
  if (picture.why) item.title = picture.why;
}

function tell(word) {
  state.textContent = state.dataset.state = word;
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws/gallery/`);
  socket.onopen = () => { wait = FIRST_WAIT; tell("connected"); };
  socket.onmessage = (event) => JSON.parse(event.data).pictures.forEach(show);
  socket.onclose = () => {
    tell("connecting");
    setTimeout(connect, wait * (0.5 + Math.random() / 2));
    wait = Math.min(2 * wait, LONGEST_WAIT);
  };
}

connect();
