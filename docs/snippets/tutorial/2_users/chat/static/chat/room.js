const { room, user } = document.querySelector("main").dataset;
const [state, list, form, error] = ["state", "messages", "say", "error"].map((id) => document.getElementById(id));

const scheme = location.protocol === "https:" ? "wss:" : "ws:";
const socket = new WebSocket(`${scheme}//${location.host}/ws/chat/${room}/`);

socket.onopen = () => showState("connected", true);
socket.onclose = (event) => showState(`closed (${event.code}); reload to connect again`, false);
socket.onmessage = (event) => {
  const content = JSON.parse(event.data);
  if (content.error) error.textContent = content.error;
  else content.messages.forEach(show);
};

function showState(text, isOpen) {
  state.textContent = text;
  if (form) form.elements.send.disabled = !isOpen;
}

function show({ id, author, text, when }) {
  if (document.getElementById(`message-${id}`)) return; // it came twice
  const item = document.createElement("li");
  item.id = `message-${id}`;
  item.className = author === user ? "mine" : "";
  const byline = document.createElement("small");
  byline.textContent = `${author}, ${new Date(when).toLocaleTimeString([], { timeStyle: "short" })}`;
  item.append(byline, text);
  list.append(item);
  item.scrollIntoView({ block: "end" });
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  error.textContent = "";
  socket.send(JSON.stringify({ text: form.elements.text.value }));
  form.reset();
});
