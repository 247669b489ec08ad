const { room, user } = document.querySelector("main").dataset;
const [state, list, form, error] = ["state", "messages", "say", "error"].map((id) => document.getElementById(id));

let socket;
let position = null; // of the last message that this page has

function connect() {
  const address = new URL(`/ws/chat/${room}/`, location.href.replace(/^http/, "ws"));
  if (position !== null) address.searchParams.set("since", position);
  socket = new WebSocket(address);
  socket.onopen = () => showState("connected", true);
  socket.onclose = () => {
    showState("connecting again", false);
    setTimeout(connect, 1000 + Math.random() * 2000);
  };
  socket.onmessage = (event) => {
    const content = JSON.parse(event.data);
    if (content.error) error.textContent = content.error;
    content.messages?.forEach(show);
    position = content.position ?? position;
  };
}

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

connect();
