// The page of the documentation in Node: node page.mjs <its module> <port>.

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const [module, port] = process.argv.slice(2);
globalThis.location = new URL(`http://127.0.0.1:${port}/`);
const { enter, socket } = await import(pathToFileURL(module));

const seen = [];
let check = () => {};

/** Wait until the view has seen this. */
const sees = (...wanted) =>
  new Promise((resolve) => {
    check = () => seen.some((one) => JSON.stringify(one) === JSON.stringify(wanted)) && resolve();
    check();
  });

const view = new Proxy({}, {
  get: (_, name) => (value) => {
    seen.push([name, value]);
    check();
  },
});

socket.connect();
const room = enter("lobby", view);
await sees("setTitle", "Lobby");
await sees("showPeople", ["ada"]);
assert.equal(await room.say("hello"), 5);
await sees("show", "hello");
assert.equal(room.typing(), true);
await room.leave();
await sees("tell", "the topic room:lobby is closed: leave() was called");
assert.equal(await room.say("too late"), null);
enter("closed", view);
await sees("tell", "the server has refused to join room:closed: this room is closed");
socket.disconnect();
console.log("passed");
process.exit(0);
