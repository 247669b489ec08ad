// Node's package "ws": node ws.cjs <port>
const { WebSocketServer } = require("ws");

const text = "x".repeat(100);
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 1000 });
const members = new Set();

server.on("connection", (client, request) => {
  client.on("error", () => client.terminate());
  if (request.url === "/echo/") {
    client.on("message", (data) => client.send(data.toString()));
    return;
  }
  members.add(client);
  client.on("close", () => members.delete(client));
  client.on("message", (data) => {
    for (let i = Number(data.toString()); i > 0; i--) for (const member of members) member.send(text);
  });
});
