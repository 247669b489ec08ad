let position = null;

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/ws/news/`);
  socket.onopen = () => socket.send(JSON.stringify({ since: position }));
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.recovered === false) loadAll();  // fetch the state, as on a page that was just opened
    if (message.text) show(message.text);
    if (message.position) position = message.position;
  };
  socket.onclose = () => setTimeout(connect, 1000 + Math.random() * 4000);
}

connect();
