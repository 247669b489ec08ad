// topics.js against a server of the test: node live.mjs <port> <scenario> <websocket or sse>.

import assert from "node:assert/strict";

import EventStreamConnection from "../../../trio_channels/static/trio_channels/topics-sse.js";
import { Presence, Socket, TopicError } from "../../../trio_channels/static/trio_channels/topics.js";

const [port, scenario, transport] = process.argv.slice(2);
const WAY = transport === "sse" ? { WebSocket: null, fallbackTries: 0 } : { fallback: null };
const sockets = [];

function connect(options = {}) {
  const socket = new Socket(`http://127.0.0.1:${port}/socket`, { backOff: () => 10, ...WAY, ...options });
  sockets.push(socket);
  socket.connect();
  return socket;
}

async function joined(name, params = {}, socket = connect()) {
  const topic = socket.topic(name, params);
  await topic.join();
  return topic;
}

/** The arguments of the next call of a listener that `register` adds. */
function next(register) {
  return new Promise((resolve) => {
    const end = register((...args) => {
      end();
      resolve(args);
    });
  });
}

const event = (topic, name) => next((listener) => topic.on(name, listener)).then(([payload]) => payload);
const rejoined = (topic) => next((listener) => topic.onJoin(listener));
const code = (wanted) => (error) => error instanceof TopicError && error.code === wanted;
const text = (bytes) => new TextDecoder().decode(bytes);
const bytes = (string) => new TextEncoder().encode(string);

async function all(stream) {
  const values = [];
  for await (const value of stream) values.push(value);
  return values;
}

/** Wait until a condition holds; it is looked at after each call of the listener. */
function until(register, condition) {
  return new Promise((resolve) => {
    const end = register(() => {
      if (!condition()) return;
      end();
      resolve();
    });
    if (condition()) resolve();
  });
}

const scenarios = {
  async join() {
    const topic = connect().topic("room:lobby", { x: 1 });
    assert.equal(topic.state, "closed");
    const joining = topic.join();
    assert.equal(topic.state, "joining");
    assert.equal(topic.join(), joining);
    assert.deepEqual(await joining, { room: "lobby" });
    assert.equal(topic.state, "joined");
    assert.equal(topic.position, null);
  },

  async joinBeforeTheConnection() {
    const socket = new Socket(new URL(`ws://127.0.0.1:${port}/socket/`), WAY);
    const joining = socket.topic("room:lobby", () => ({ x: 1 })).join();
    socket.connect();
    socket.connect();
    assert.deepEqual(await joining, { room: "lobby" });
    socket.disconnect();
  },

  async refusal() {
    const topic = connect().topic("room:lobby", { refuse: "full" });
    const closed = next((listener) => topic.onClose(listener));
    await assert.rejects(topic.join(), (error) => {
      assert.deepEqual([error.code, error.response], ["refused", { reason: "full" }]);
      assert.equal(error.message, "the server has refused to join room:lobby: full");
      return true;
    });
    assert.equal((await closed)[0].code, "refused");
    assert.equal(topic.state, "closed");
    await assert.rejects(sockets[0].topic("rom:lobby").join(), code("refused"));
  },

  async temporaryRefusal() {
    let times = 0;
    const topic = connect().topic("room:lobby", () => (++times < 3 ? { away: 1 } : { x: 1 }));
    const errors = [];
    topic.onError((error) => errors.push(error.response.reason));
    assert.deepEqual(await topic.join(), { room: "lobby" });
    assert.deepEqual(errors, ["unavailable", "unavailable"]);
  },

  async paramsThatFail() {
    const topic = connect().topic("room:lobby", () => {
      throw new RangeError("no params");
    });
    await assert.rejects(topic.join(), RangeError);
    assert.equal(topic.state, "closed");
  },

  async repliesInOrder() {
    const topic = await joined("room:lobby");
    const order = [];
    const numbers = Array.from({ length: 500 }, (_, n) => n);
    await Promise.all(numbers.map(async (n) => order.push((await topic.push("echo", { n })).n)));
    assert.deepEqual(order, numbers);
  },

  async pushesBeforeTheJoin() {
    const topic = connect().topic("room:lobby");
    await assert.rejects(topic.push("echo"), code("closed"));
    topic.join();
    const payload = { n: 1 };
    const pushed = topic.push("echo", payload);
    payload.n = 2; // the push has a copy
    await assert.rejects(topic.push("echo", {}, { queue: false }), code("offline"));
    assert.equal(topic.tell("echo"), false);
    assert.deepEqual(await pushed, { n: 1 });
    assert.deepEqual(await topic.push("echo", {}, { queue: false }), {});
  },

  async fullQueue() {
    const topic = connect({ maxQueue: 2, window: 1 }).topic("room:lobby");
    topic.join();
    const waiting = [topic.push("echo", 1), topic.push("echo", 2)];
    await assert.rejects(topic.push("echo", 3), (error) => {
      assert.equal(error.message, "echo was not sent: 2 pushes to room:lobby wait already");
      return error.code === "full";
    });
    assert.deepEqual(await Promise.all(waiting), [1, 2]);
    const more = [topic.push("echo", 4), topic.push("echo", 5), topic.push("echo", 6)];
    await assert.rejects(topic.push("echo", 7), code("full"));
    assert.deepEqual(await Promise.all(more), [4, 5, 6]);
  },

  async errorReplies() {
    const topic = await joined("room:lobby");
    await assert.rejects(topic.push("refuse"), (error) => error.response.reason === "not now");
    await assert.rejects(topic.push("refuse.plainly"), code("refused"));
    await assert.rejects(topic.push("no.such"), (error) => error.response.reason === "unmatched event");
    await assert.rejects(topic.push("message.new", { text: 1 }), (error) => error.response.at === "$.text");
  },

  async wrongArguments() {
    const socket = connect();
    const topic = await joined("room:lobby", {}, socket);
    const own = {};
    own.self = own;
    for (const payload of [own, 1n, () => 1, Symbol("x")]) {
      await assert.rejects(topic.push("echo", payload), TypeError);
      assert.throws(() => topic.tell("echo", payload), TypeError);
    }
    for (const name of ["", "phx_leave", "x".repeat(256), "é".repeat(128), 7, null]) {
      await assert.rejects(topic.push(name), TypeError);
    }
    for (const name of ["", "x".repeat(256), 7]) assert.throws(() => socket.topic(name), TypeError);
    await assert.rejects(topic.push("echo", [1], { once: true }), TypeError);
    await assert.rejects(topic.push("echo", bytes("x"), { once: true }), TypeError);
    await assert.rejects(all(topic.stream("count", 1, { once: true })), TypeError);
    assert.throws(() => topic.on("told", null), TypeError);
    assert.throws(() => new Socket("/socket", { timeOut: 1 }), /unknown option "timeOut"/);
    assert.throws(() => new Socket("/socket", { WebSocket: undefined }), /give the option WebSocket/);
    const nowhere = new Socket("nowhere");
    assert.throws(() => nowhere.connect(), TypeError);
    assert.equal(nowhere.state, "disconnected");
    await assert.rejects(socket.topic("room:lobby").join(), /another object has joined it/);
    assert.equal(await topic.push("echo", "alive"), "alive");
  },

  async timeOut() {
    const topic = await joined("room:lobby");
    await assert.rejects(topic.push("wait", {}, { timeout: 50 }), code("timeout"));
    const other = await joined("room:other", {}, sockets[0]);
    assert.equal(other.tell("open"), true);
    assert.deepEqual(await topic.push("echo", { n: 2 }), { n: 2 });
  },

  async joinTimeOut() {
    const topic = connect().topic("slow:lobby");
    const joining = topic.join({ timeout: 100 });
    const [error] = await next((listener) => topic.onError(listener));
    assert.equal(error.code, "timeout");
    (await joined("room:other")).tell("open");
    await joining;
    assert.equal(topic.state, "joined");
  },

  async crashAndRejoin() {
    const topic = await joined("room:lobby");
    const other = await joined("room:other", {}, sockets[0]);
    const failed = next((listener) => topic.onError(listener));
    const again = rejoined(topic);
    await assert.rejects(topic.push("crash"), code("lost"));
    assert.equal((await failed)[0].code, "crashed");
    assert.deepEqual(await again, [{}, true]);
    assert.deepEqual(await topic.push("echo", { n: 1 }), { n: 1 });
    assert.equal(other.state, "joined");
  },

  async pushThatFailsItsTopicTwiceIsGivenUp() {
    const topic = await joined("room:lobby");
    let crashes = 0;
    topic.onError(() => crashes++);
    const innocent = topic.push("echo", { n: 1 }, { once: true });
    const guilty = topic.push("crash", {}, { once: true });
    const later = topic.push("echo", { n: 2 }, { once: true });
    assert.equal((await innocent).n, 1);
    await assert.rejects(guilty, code("lost"));
    assert.equal((await later).n, 2);
    assert.equal(crashes, 2);
  },

  async leave() {
    const topic = await joined("room:lobby");
    const closed = next((listener) => topic.onClose(listener));
    const pushed = topic.push("echo", { n: 1 });
    const left = topic.leave();
    assert.equal(topic.state, "leaving");
    assert.equal(topic.leave(), left);
    await assert.rejects(topic.join(), /await leave\(\) first/);
    await assert.rejects(topic.push("echo"), code("closed"));
    assert.deepEqual(await pushed, { n: 1 });
    await left;
    assert.equal(topic.state, "closed");
    assert.equal((await closed)[0].code, "closed");
    await topic.leave();
    await joined("room:lobby", {}, sockets[0]);
  },

  async leaveBeforeTheReplyToTheJoin() {
    const topic = connect().topic("slow:lobby");
    const joining = topic.join();
    await until((listener) => sockets[0].onState(listener), () => sockets[0].state === "connected");
    const left = topic.leave();
    await assert.rejects(joining, code("closed"));
    await left;
    assert.equal(topic.state, "closed");
  },

  async joinAfterLeave() {
    const topic = await joined("room:lobby", { x: 1 });
    await topic.leave();
    assert.deepEqual(await topic.join(), { room: "lobby" });
  },

  async closeByTheServer() {
    const topic = await joined("room:lobby");
    const closed = next((listener) => topic.onClose(listener));
    await assert.rejects(topic.push("stop"), code("lost"));
    assert.match((await closed)[0].message, /the server has ended it/);
    assert.equal(topic.state, "closed");
  },

  async heartbeats() {
    const socket = connect({ heartbeat: 200 });
    await joined("room:lobby", {}, socket);
    let sent = 0;
    await new Promise((resolve) => {
      const { prototype } = transport === "sse" ? EventStreamConnection : WebSocket;
      const { send } = prototype;
      prototype.send = function (data) {
        send.call(this, data);
        if (data.includes("heartbeat") && ++sent === 5) resolve();
      };
    });
  },

  async broadcasts() {
    const [one, two] = [await joined("room:lobby"), await joined("room:lobby")];
    const got = Promise.all([event(one, "message.new"), event(two, "message.new")]);
    assert.deepEqual(await one.push("message.new", { text: "hé" }), { text: "hé", length: 2 });
    assert.deepEqual(await got, [{ text: "hé" }, { text: "hé" }]);
    one.on("others", () => assert.fail("broadcast_from came back"));
    const others = event(two, "others");
    await one.push("others", { n: 1 });
    assert.deepEqual(await others, { n: 1 });
    await one.push("echo");
  },

  async listeners() {
    const topic = await joined("room:lobby");
    const got = [];
    console.error = (error) => got.push(error.message);
    const count = (payload) => got.push(payload);
    topic.on("pushed", () => {
      throw new Error("of a handler");
    });
    const ends = [topic.on("pushed", count), topic.on("pushed", count)];
    await topic.push("push", 1);
    ends[0]();
    ends[0]();
    await topic.push("push", 2);
    assert.deepEqual(got, ["of a handler", 1, 1, "of a handler", 2]);
  },

  async binary() {
    const [one, two] = [await joined("room:lobby"), await joined("room:lobby")];
    assert.equal(text(await one.push("bytes", bytes("abc"))), "cba");
    assert.equal(text(await one.push("bytes", bytes("xabc").buffer.slice(1))), "cba");
    assert.equal(text(await one.push("bytes", new DataView(bytes("xabcx").buffer, 1, 3))), "cba");
    const pushed = event(one, "pushed");
    await one.push("push", bytes("to me"));
    const got = await pushed;
    assert.ok(got instanceof Uint8Array);
    assert.equal(text(got), "to me");
    const told = event(two, "others");
    await one.push("others", bytes("to all"));
    assert.equal(text(await told), "to all");
  },

  async streams() {
    const topic = await joined("room:lobby");
    assert.deepEqual(await all(topic.stream("count", 3)), [{ n: 0 }, { n: 1 }, { n: 2 }]);
    assert.deepEqual(await all(topic.stream("count", 0)), []);
    for await (const { n } of topic.stream("count", 1000)) {
      if (n === 2) break;
    }
    assert.deepEqual(await topic.push("count", 1), { n: 0 });
    assert.deepEqual(await topic.push("count", 0), {});
    await assert.rejects(all(topic.stream("refuse")), code("refused"));
    await assert.rejects(all(topic.stream("wait", {}, { timeout: 50 })), code("timeout"));
    await assert.rejects(all(connect().topic("room:none").stream("count", 1)), code("closed"));
  },

  async presence() {
    const ada = connect().topic("here:lobby", { key: "ada", meta: { at: "home" } });
    const presence = new Presence(ada);
    const [joins, leaves] = [[], []];
    presence.onJoin((key, joined, others) => joins.push([key, joined.length, others.length]));
    presence.onLeave((key, left, others) => leaves.push([key, left.length, others.length]));
    const keys = () => presence.list().map(({ key }) => key);
    const synced = (condition) => until((listener) => presence.onChange(listener), condition);
    await ada.join();
    await synced(() => keys().join() === "ada");
    assert.equal(presence.get("ada")[0].at, "home");

    const bob = await joined("here:lobby", { key: "bob" });
    await synced(() => keys().join() === "ada,bob");
    const tab = await joined("here:lobby", { key: "bob" });
    await synced(() => presence.get("bob").length === 2);
    await tab.leave();
    await synced(() => presence.get("bob").length === 1);
    sockets[1].disconnect();
    await synced(() => keys().join() === "ada");
    assert.deepEqual(presence.get("bob"), []);
    assert.deepEqual(joins, [["ada", 1, 0], ["bob", 1, 0], ["bob", 1, 1]]);
    assert.deepEqual(leaves, [["bob", 1, 1], ["bob", 1, 0]]);

    await joined("here:lobby", { key: "constructor" });
    await synced(() => keys().join() === "ada,constructor");
    const again = rejoined(ada);
    (await joined("room:lobby", {}, sockets[0])).push("close.socket", {code: 1012}).catch(() => {});
    await again;
    await synced(() => presence.get("ada")[0]?.phx_ref !== undefined && keys().length === 2);
  },

  async resume() {
    const topic = connect().topic("kept:lobby");
    const first = await topic.join();
    assert.equal(first.recovered, false);
    assert.equal(topic.position, first.position);
    const got = [];
    topic.on("told", (payload) => got.push([payload.n ?? text(payload), topic.position]));
    const closer = await joined("room:lobby", {}, sockets[0]);
    const other = await joined("kept:lobby");
    const told = event(topic, "told");
    await other.push("tell", { n: 0 });
    await told;
    const { position } = topic;
    const again = rejoined(topic);
    await assert.rejects(closer.push("close.socket", {code: 1012}), code("lost"));
    for (const n of [1, 2]) await other.push("tell", { n });
    await other.push("tell", bytes("three"));
    const [reply, isAgain] = await again;
    assert.deepEqual([reply, isAgain], [{ recovered: true, position }, true]);
    await until((listener) => topic.on("told", listener), () => got.length === 4);
    assert.deepEqual(got.map(([value]) => value), [0, 1, 2, "three"]);
    assert.deepEqual(new Set(got.map(([, position]) => position)).size, 4);

    // A page that was loaded again, and has kept its position.
    const later = connect().topic("kept:lobby");
    later.position = got[1][1];
    assert.equal((await later.join()).recovered, true);
    // A position that the server does not know.
    later.position = "unknown";
    await later.leave();
    const reloaded = await later.join();
    assert.deepEqual([reloaded.recovered, later.position], [false, got[3][1]]);
  },

  async reconnect() {
    const states = [];
    const topic = await joined("room:lobby");
    sockets[0].onState((state, ended) => states.push([state, ended?.code]));
    const again = rejoined(topic);
    await assert.rejects(topic.push("close.socket", {code: 1012}), code("lost"));
    const once = topic.push("echo", { n: 1 });
    await again;
    assert.deepEqual(await once, { n: 1 });
    assert.deepEqual(states, [["waiting", 1012], ["connecting", undefined], ["connected", undefined]]);
  },

  async finalCode() {
    const topic = await joined("room:lobby");
    const [closed, ended] = [next((listener) => topic.onClose(listener)), next((on) => sockets[0].onState(on))];
    await assert.rejects(topic.push("close.socket", {code: 4003}), code("lost"));
    assert.deepEqual(await ended, ["disconnected", { code: 4003, reason: "" }]);
    assert.equal((await closed)[0].message, "the socket is closed (code 4003)");
    assert.deepEqual([sockets[0].state, topic.state], ["disconnected", "closed"]);
    sockets[0].connect();
    assert.deepEqual(await topic.join(), {});
  },

  async ownFinalCodes() {
    const topic = await joined("room:lobby", {}, connect({ isFinal: (code) => code === 1000 }));
    const again = rejoined(topic);
    await assert.rejects(topic.push("close.socket", {code: 4003}), code("lost"));
    await again;
    await assert.rejects(topic.push("close.socket", {code: 1000}), code("lost"));
    assert.equal(sockets[0].state, "disconnected");
  },

  async disconnect() {
    const socket = connect();
    const topic = await joined("room:lobby", {}, socket);
    const [sent, joining] = [topic.push("wait"), socket.topic("slow:lobby").join()];
    socket.disconnect();
    socket.disconnect();
    await assert.rejects(sent, code("lost"));
    await assert.rejects(joining, code("closed"));
    assert.deepEqual([socket.state, topic.state], ["disconnected", "closed"]);
    await assert.rejects(topic.push("echo"), code("closed"));
  },

  async pushThatTheServerDoesNotTakeIsNotSentForEver() {
    const topic = await joined("room:lobby");
    const large = topic.push("echo", { text: "x".repeat(2 ** 21) }, { once: true });
    await assert.rejects(large, code("lost"));
    assert.deepEqual(await topic.push("echo", { n: 1 }), { n: 1 });
  },

  async lostReplyOfAOnceOnlyPush() {
    const topic = await joined("once:lobby");
    const again = rejoined(topic);
    const plain = topic.push("add", { n: 1 }); // its handler closes the socket
    const once = [2, 3].map((n) => topic.push("add", { n }, { once: true }));
    await assert.rejects(plain, code("lost"));
    await again;
    assert.deepEqual(await Promise.all(once), [{ n: 2 }, { n: 3 }]);
    assert.deepEqual(await topic.push("handled"), [1, 2, 3]);
  },

  async authToken() {
    const topic = await joined("room:lobby", {}, connect({ authToken: () => "sécret??", params: { user: "a&b" } }));
    assert.deepEqual(await topic.push("who"), { token: "sécret??", user: "a&b" });
  },

  async thousandTopics() {
    const socket = connect();
    const topics = await Promise.all(Array.from({ length: 1000 }, (_, n) => joined(`room:${n}`, {}, socket)));
    const replies = await Promise.all(topics.map((topic, n) => topic.push("echo", n)));
    assert.deepEqual(replies, topics.map((_, n) => n));
  },
};

await scenarios[scenario]();
for (const socket of sockets) socket.disconnect();
console.log("passed");
process.exit(0);
