// topics.js against a server of the test: node topics.mjs <port> <case> [sse].

import { readFileSync } from "node:fs";

import { Presence, Socket } from "../../trio_channels/static/trio_channels/topics.js";
import EventStreamConnection from "../../trio_channels/static/trio_channels/topics-sse.js";
import { Queue, run } from "./steps.mjs";

const [port, name, transport] = process.argv.slice(2);
const { cases } = JSON.parse(readFileSync(new URL("cases.json", import.meta.url)));
const events = new Set(cases[name].steps.filter((step) => step.do === "event").map((step) => step.event));

const buffer = (value) => (value instanceof Uint8Array ? value.buffer : value);

const ANSWERS = { refused: "error", timeout: "timeout", lost: "lost" };
const failed = ({ code, response }) => [ANSWERS[code], response];

function connect(_, { params, token, heartbeat }) {
  const beats = new Queue();
  const count = ({ data }) => data.includes?.('"phoenix","phx_reply"') && beats.put(null);
  class Counting extends WebSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", count);
    }
  }
  class CountingStream extends EventStreamConnection {
    constructor(...args) {
      super(...args);
      let listener = null;
      const counting = (message) => {
        count(message);
        listener?.(message);
      };
      Object.defineProperty(this, "onmessage", { get: () => counting, set: (given) => (listener = given) });
    }
  }
  const fallback = async () => ({ default: CountingStream });
  const way = transport === "sse" ? { WebSocket: null, fallback, fallbackTries: 0 } : { WebSocket: Counting, fallback: null };
  const options = { params: params ?? {}, authToken: token, ...way, ...(heartbeat && { heartbeat }) };
  const socket = new Socket(`http://127.0.0.1:${port}/socket`, { ...options, backOff: () => 10 });
  const [away, ended] = [new Queue(), new Queue()];
  socket.onState((state, end) => {
    if (state === "waiting") away.put(null);
    if (state === "disconnected") ended.put(end.code);
  });
  socket.connect();
  return {
    close: () => socket.disconnect(),
    away: () => away.take(),
    ended: () => ended.take(),
    beats: async (count) => {
      for (let number = 0; number < count; number += 1) await beats.take();
    },
    channel: (topic, params, { timeout, on }) => adapted(socket.topic(topic, params), timeout, on),
  };
}

function adapted(topic, timeout, on) {
  for (const event of events) topic.on(event, (payload) => on.event(event, buffer(payload)));
  const presence = new Presence(topic);
  presence.onChange((list) => on.presence(Object.fromEntries(list.map(({ key, metas }) => [key, metas]))));
  const answer = (error) => error.code in ANSWERS && on.answer(failed(error));
  topic.onJoin((reply) => on.answer(["ok", reply]));
  topic.onError(answer);
  topic.onClose((error) => {
    answer(error);
    on.closed();
  });
  topic.join({ timeout }).catch(() => {});
  return {
    leave: () => topic.leave().then(() => ["ok", {}]),
    push: (event, payload, timeout) =>
      topic.push(event, payload, { timeout }).then((response) => ["ok", buffer(response)], failed),
    stream: async (event, payload) => {
      const answers = [];
      for await (const response of topic.stream(event, payload)) answers.push(["ok", response]);
      return [...answers, ["end", {}]];
    },
  };
}

await run(cases[name], connect);
console.log("passed");
process.exit(0);
