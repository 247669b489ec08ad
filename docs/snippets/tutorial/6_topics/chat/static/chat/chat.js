import { Presence, Socket } from "topics";

const main = document.querySelector("main");
const [state, people, form, readers, error] = ["state", "people", "say", "readers", "error"].map((id) =>
  document.getElementById(id),
);
const socket = new Socket("/socket");

class Room {
  unread = 0;
  mayWrite = null; // not known yet

  constructor(link) {
    this.link = link;
    this.name = link.hash.slice(1);
    this.list = document.createElement("ol");
    this.list.className = "messages";
    this.list.setAttribute("role", "log");
    this.list.setAttribute("aria-label", `Messages in ${this.name}`);
    main.append(this.list);

    this.topic = socket.topic(`room:${this.name}`);
    this.topic.onJoin((reply, again) => this.joined(reply, again));
    this.topic.on("message", (message) => {
      if (this.show(message) && this !== current) this.unread += 1;
      showRooms();
    });
    this.topic.join().catch((failure) => (error.textContent = failure.message));
  }

  async joined({ may_write, recovered }, again) {
    this.mayWrite = may_write;
    showRooms();
    // Not at the first visit, and not when the channel layer's history is gone, or too short for the outage.
    if (!recovered) await this.load();
    if (again) state.textContent = `connected again, ${recovered ? "nothing missed" : "read from the database"}`;
  }

  async load() {
    try {
      const { messages } = await this.topic.push("latest", {}, { once: true });
      for (const item of [...this.list.children]) {
        if (Number(item.dataset.id) < messages[0]?.id) item.remove(); // there may be a hole behind it
      }
      messages.forEach((message) => this.show(message));
    } catch (failure) {
      error.textContent = failure.message;
    }
  }

  // Returns whether the message is new.
  show({ id, author, text, when }) {
    const items = [...this.list.children];
    if (items.some((item) => item.dataset.id === String(id))) return false;
    const item = line(author, text, new Date(when));
    item.dataset.id = id;
    // Messages that wait to be sent have no id, and stay at the end.
    this.list.insertBefore(item, items.find((other) => !(Number(other.dataset.id) < id)) ?? null);
    this.list.scrollTop = this.list.scrollHeight;
    return true;
  }

  async say(text) {
    const item = line(main.dataset.user, text, new Date());
    item.classList.add("waiting");
    this.list.append(item);
    this.list.scrollTop = this.list.scrollHeight;
    try {
      await this.topic.push("say", { text }, { once: true });
    } catch (failure) {
      error.textContent = `“${text}” was not sent: ${failure.response?.message ?? failure.message}`;
    }
    item.remove(); // the message itself is there, or comes
  }
}

function line(author, text, when) {
  const item = document.createElement("li");
  item.className = author === main.dataset.user ? "mine" : "";
  const byline = document.createElement("small");
  byline.textContent = `${author}, ${when.toLocaleTimeString([], { timeStyle: "short" })}`;
  item.append(byline, text);
  return item;
}

function showRooms() {
  const everybody = presence.list();
  for (const room of rooms) {
    const here = everybody.filter(({ metas }) => metas.some((meta) => meta.room === room.name));
    const names = here.map(({ key }) => key).join(", ");
    room.link.querySelector("small").textContent = names;
    room.link.querySelector("b").textContent = room.unread || "";
    if (room === current) people.textContent = `Here: ${names}`;
  }
  form.hidden = current.mayWrite !== true;
  readers.hidden = current.mayWrite !== false;
}

function look() {
  current = rooms.find((room) => room.link.hash === location.hash) ?? rooms[0];
  current.unread = 0;
  error.textContent = "";
  for (const room of rooms) {
    room.list.hidden = room !== current;
    room.link.ariaCurrent = room === current ? "page" : null;
  }
  current.list.scrollTop = current.list.scrollHeight;
  place.tell("look_at", { room: current.name });
  showRooms();
}

socket.onState((now) => {
  state.textContent = now === "connected" ? "connected" : "connecting; what you write waits";
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  error.textContent = "";
  current.say(form.elements.text.value);
  form.reset();
});

const place = socket.topic("people", () => ({ room: current.name }));
const presence = new Presence(place);
presence.onChange(showRooms);
const rooms = [...document.querySelectorAll(".rooms a")].map((link) => new Room(link));
let current = rooms[0];
addEventListener("hashchange", look);
look();
place.join().catch((failure) => (error.textContent = failure.message));
socket.connect();
