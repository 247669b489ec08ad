// When topics.js falls back, with connections, a clock and a storage of the test: node fallback.mjs <scenario>.

import assert from "node:assert/strict";

import { Socket } from "../../../trio_channels/static/trio_channels/topics.js";

const [scenario] = process.argv.slice(2);

const clock = { now: 0, timers: new Map() };
Date.now = () => clock.now;
globalThis.setTimeout = (call, milliseconds) => {
  const timer = {};
  clock.timers.set(timer, { at: clock.now + milliseconds, call });
  return timer;
};
globalThis.clearTimeout = (timer) => clock.timers.delete(timer);

function tick(milliseconds) {
  clock.now += milliseconds;
  for (const [timer, { at, call }] of [...clock.timers]) {
    if (at <= clock.now && clock.timers.delete(timer)) call();
  }
}

const stored = new Map();
const storage = {
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, value) => stored.set(key, value),
};
globalThis.sessionStorage = storage;
globalThis.location = { href: "https://example.com/" };

/** All attempts, and the last one. */
const attempts = [];
const last = () => attempts.at(-1);

class Connection {
  isClosed = false;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    attempts.push(this);
  }

  send() {}

  close() {
    this.isClosed = true;
  }
}
class Blocked extends Connection {}
class Fallback extends Connection {}

const settled = () => new Promise((resolve) => setImmediate(resolve));
const kinds = () => attempts.map(({ constructor }) => (constructor === Blocked ? "w" : "f")).join("");

function made(options = {}) {
  const fallback = async () => ({ default: Fallback });
  return new Socket("/socket", { WebSocket: Blocked, fallback, backOff: () => 1_000, ...options });
}

function connected(options = {}) {
  const socket = made(options);
  socket.connect();
  return socket;
}

/** The current attempt fails, and the next one begins. */
async function fail(detail = {}) {
  last().onclose({ code: 1006, reason: "", ...detail });
  tick(1_000);
  await settled();
}

const scenarios = {
  async fallsBackAfterTwoFailures() {
    const socket = connected();
    await fail();
    await fail();
    assert.equal(kinds(), "wwf");
    assert.equal(last().url, "wss://example.com/socket/websocket?vsn=2.0.0");
    assert.deepEqual(last().protocols, ["phoenix"]);
    assert.equal(last().binaryType, "arraybuffer");
    last().onopen();
    assert.equal(socket.state, "connected");
    for (const code of [1006, 1012]) {
      await fail({ code });
      last().onopen();
    }
    assert.equal(kinds(), "wwfff");
  },

  async fallsBackWhenAWebSocketHangs() {
    const socket = connected();
    tick(4_999);
    assert.equal(socket.state, "connecting");
    tick(1);
    assert.equal(socket.state, "waiting");
    assert.equal(attempts[0].isClosed, true);
    tick(1_000);
    await settled();
    assert.equal(kinds(), "wf");
    tick(9_999); // the fallback has the time that a connection has
    assert.equal(socket.state, "connecting");
    last().onopen();
    assert.equal(socket.state, "connected");
  },

  async takesTurnsWhileTheServerIsAway() {
    connected({ fallbackTries: 3 });
    for (let n = 0; n < 6; n += 1) await fail();
    assert.equal(kinds(), "wwwfwfw");
    last().onopen();
    for (let n = 0; n < 5; n += 1) await fail();
    assert.equal(kinds(), "wwwfwfwwwwww"); // a page whose WebSocket has opened stays with it
  },

  async webSocketThatHasOpenedHasItsOwnTime() {
    const socket = connected();
    last().onopen();
    await fail();
    tick(9_999);
    assert.equal(socket.state, "connecting");
    tick(1);
    assert.equal(socket.state, "waiting");
  },

  async noTriesMeansAlwaysTheFallback() {
    connected({ fallbackTries: 0, WebSocket: null });
    await settled();
    for (let n = 0; n < 3; n += 1) await fail();
    assert.equal(kinds(), "ffff");
  },

  async noFallback() {
    const socket = connected({ fallback: null });
    tick(9_999);
    assert.equal(socket.state, "connecting");
    for (let n = 0; n < 5; n += 1) await fail();
    assert.equal(kinds(), "wwwwww");
    assert.throws(() => made({ fallback: null, WebSocket: null }), /give the option WebSocket/);
  },

  async serverWithoutAFallback() {
    connected();
    for (const isMissing of [false, false, true, false, false, false]) await fail({ isMissing });
    assert.equal(kinds(), "wwfwwww");
  },

  async fallbackThatCannotBeLoaded() {
    const socket = connected({ fallback: () => Promise.reject(new Error("no network")) });
    await fail();
    await fail();
    assert.equal(socket.state, "waiting");
    tick(1_000);
    assert.equal(kinds(), "www");
  },

  async fallbackThatIsLoadedTooLate() {
    const loads = [];
    const socket = connected({ fallback: () => new Promise((resolve) => loads.push(resolve)) });
    await fail();
    await fail();
    tick(10_000);
    assert.equal(socket.state, "waiting");
    loads[0]({ default: Fallback });
    await settled();
    assert.equal(socket.state, "waiting");
    tick(1_000);
    last().onclose({ code: 1006, reason: "" });
    tick(1_000);
    socket.disconnect();
    loads[1]({ default: Fallback });
    await settled();
    assert.deepEqual([kinds(), socket.state], ["www", "disconnected"]);
  },

  async furtherPagesBeginWithTheFallback() {
    connected();
    await fail();
    await fail();
    last().onopen();
    clock.now += 590_000;
    for (const [wait, expected] of [[0, "f"], [9_000, "f"], [1_000, "w"]]) {
      clock.now += wait; // the memory does not begin anew with each page
      attempts.length = 0;
      connected();
      await settled();
      last().onopen();
      assert.equal(kinds(), expected);
    }
  },

  async memoryIsOfOneAddress() {
    connected({ fallbackTries: 0 });
    await settled();
    last().onopen();
    attempts.length = 0;
    new Socket("/other", { WebSocket: Blocked }).connect();
    assert.equal(kinds(), "w");
  },

  async webSocketThatOpensIsRemembered() {
    stored.set("topics.js /socket", "1000");
    connected();
    await settled();
    await fail();
    last().onopen();
    assert.equal(kinds(), "fw");
    attempts.length = 0;
    connected();
    assert.equal(kinds(), "w");
  },

  async memoryOfNoTime() {
    for (let page = 0; page < 2; page += 1) {
      attempts.length = 0;
      connected({ fallbackMemory: 0 });
      await fail();
      await fail();
      last().onopen();
      assert.equal(kinds(), "wwf");
    }
  },

  async storageThatIsForbidden() {
    const forbidden = () => {
      throw new Error("SecurityError");
    };
    Object.assign(storage, { getItem: forbidden, setItem: forbidden });
    const socket = connected();
    await fail();
    await fail();
    last().onopen();
    assert.deepEqual([kinds(), socket.state], ["wwf", "connected"]);
  },

  async paramsThatFailWhileThePageFallsBack() {
    let fails = false;
    globalThis.reportError = () => {};
    const socket = connected({
      params: () => {
        if (fails) throw new RangeError("no params");
        return {};
      },
    });
    await fail();
    fails = true;
    await fail();
    assert.equal(socket.state, "waiting");
    fails = false;
    tick(1_000);
    await fail();
    assert.equal(kinds(), "wwwf");
  },
};

await scenarios[scenario]();
console.log("passed");
process.exit(0);
