// topics.js with a WebSocket, a clock and a page of the test: node scripted.mjs <scenario>.

import assert from "node:assert/strict";

import { Presence, Socket, backOff } from "../../../trio_channels/static/trio_channels/topics.js";

const [scenario] = process.argv.slice(2);

/** The time: it goes on when a test says so. */
const clock = {
  now: 0,
  timers: new Map(),

  /** Time goes on, and each timer is called when it is due. */
  tick(milliseconds) {
    const end = this.now + milliseconds;
    for (let timer = this.next(end); timer !== undefined; timer = this.next(end)) {
      this.now = Math.max(this.now, timer[1].at);
      this.timers.delete(timer[0]);
      timer[1].call();
    }
    this.now = end;
  },

  /** The machine sleeps: the timers that were due are called at its end. */
  sleep(milliseconds) {
    this.now += milliseconds;
    this.tick(0);
  },

  next(end) {
    return [...this.timers].filter(([, { at }]) => at <= end).sort(([, one], [, other]) => one.at - other.at)[0];
  },
};
Date.now = () => clock.now;
globalThis.setTimeout = (call, milliseconds) => {
  const timer = {};
  clock.timers.set(timer, { at: clock.now + milliseconds, call });
  return timer;
};
globalThis.clearTimeout = (timer) => clock.timers.delete(timer);

/** A page, as far as topics.js looks at one. */
class Page extends EventTarget {
  listeners = 0;

  addEventListener(...args) {
    this.listeners += 1;
    super.addEventListener(...args);
  }

  removeEventListener(...args) {
    this.listeners -= 1;
    super.removeEventListener(...args);
  }
}

const page = new Page();
globalThis.document = Object.assign(new Page(), { visibilityState: "visible" });
globalThis.addEventListener = (...args) => page.addEventListener(...args);
globalThis.removeEventListener = (...args) => page.removeEventListener(...args);
globalThis.location = { href: "https://example.com/chat/?x=1#top" };

function show(visibilityState) {
  document.visibilityState = visibilityState;
  document.dispatchEvent(new Event("visibilitychange"));
}

const reported = [];
globalThis.reportError = (error) => reported.push(error);

/** The attempts to connect; the last one is `ws()`. */
const attempts = [];
const ws = () => attempts.at(-1);

class Scripted {
  sent = [];
  isOpen = false;
  closed = false;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    attempts.push(this);
  }

  open() {
    this.isOpen = true;
    this.onopen();
  }

  send(data) {
    assert.ok(this.isOpen, "sent before the connection was open");
    this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
  }

  close() {
    this.closed = true;
  }

  get last() {
    return this.sent.at(-1);
  }

  /** The server answers the last message. */
  reply(response = {}, status = "ok", frame = this.last) {
    const [joinRef, ref, topic] = frame;
    this.message([joinRef, ref, topic, "phx_reply", { status, response }]);
  }

  message(frame) {
    this.onmessage?.({ data: frame instanceof Uint8Array ? frame.buffer : JSON.stringify(frame) });
  }

  text(data) {
    this.onmessage({ data });
  }

  /** A broadcast of the topic "a". */
  broadcast(n, position = null) {
    this.message([null, null, "a", "told", n, ...(position === null ? [] : [position])]);
  }

  binary(n) {
    const head = [2, 1, 4, ...new TextEncoder().encode("atold")];
    this.message(Uint8Array.from([...head, n]));
  }

  lose(code = 1006, reason = "") {
    this.onclose?.({ code, reason });
  }
}

const delays = [];

function connected(options = {}) {
  const socket = new Socket("/socket", {
    WebSocket: Scripted,
    backOff: (attempt, code) => {
      delays.push([attempt, code]);
      return 1_000;
    },
    ...options,
  });
  socket.connect();
  ws().open();
  return socket;
}

function joined(socket = connected(), reply = {}) {
  const topic = socket.topic("a");
  topic.got = [];
  topic.on("told", (payload) => topic.got.push(typeof payload === "number" ? payload : payload[0]));
  topic.join();
  ws().reply(reply);
  assert.equal(topic.state, "joined");
  return topic;
}

const HISTORY = { recovered: false, position: "e:0" };

function reopen() {
  clock.tick(1_000);
  ws().open();
}

/** The code of the error with which a promise fails. */
const code = (promise) => promise.then(() => "ok", (error) => error.code);

const scenarios = {
  async delays() {
    const range = (attempt, code) => {
      const values = Array.from({ length: 1_000 }, () => backOff(attempt, code));
      assert.ok(new Set(values).size > 900); // jitter
      return [Math.min(...values), Math.max(...values)];
    };
    const within = ([low, high], least, most) => assert.ok(least <= low && high <= most, `${low} to ${high}`);
    within(range(1), 500, 1_000);
    within(range(3, 1006), 2_000, 4_000);
    within(range(50), 15_000, 30_000);
    within(range(5_000), 15_000, 30_000);
    within(range(1, 1012), 1_000, 5_000);
    within(range(9, 1012), 15_000, 30_000);
    within(range(1, 1013), 5_000, 15_000);
    within(range(6, 1013), 15_000, 30_000);
  },

  async address() {
    connected({ params: () => ({ user: "a&b", vsn: "1" }), authToken: "é?~" });
    assert.equal(ws().url, "wss://example.com/socket/websocket?user=a%26b&vsn=2.0.0");
    assert.deepEqual(ws().protocols, ["phoenix", "base64url.bearer.phx.w6k_fg"]);
    location.href = "http://example.com/";
    connected({ authToken: () => null });
    assert.equal(ws().url, "ws://example.com/socket/websocket?vsn=2.0.0");
    assert.deepEqual(ws().protocols, ["phoenix"]);
  },

  async replyToNothingIsNoReplyToAJoin() {
    for (const status of ["ok", "error"]) {
      const topic = joined();
      const [joinRef] = ws().last;
      topic.tell("hello");
      ws().message([joinRef, null, "a", "phx_error", {}]);
      ws().reply({}, status); // to the tell, which has no reference
      assert.equal(topic.state, "joining");
      const { length } = ws().sent;
      clock.tick(1_000);
      assert.equal(ws().sent.length, length + 1);
      ws().reply();
      assert.equal(topic.state, "joined");
    }
  },

  async attemptsAreCountedUntilAConnectionHolds() {
    connected();
    ws().lose(1012);
    for (let attempt = 0; attempt < 2; attempt += 1) {
      clock.tick(1_000);
      ws().lose();
    }
    reopen();
    clock.tick(9_000);
    ws().lose();
    reopen();
    clock.tick(10_000);
    ws().lose(1013);
    assert.deepEqual(delays, [[1, 1012], [2, 1006], [3, 1006], [4, 1006], [1, 1013]]);
    assert.equal(attempts.length, 5);
  },

  async connectionThatHangsIsGivenUp() {
    const socket = connected();
    ws().lose();
    clock.tick(1_000);
    assert.equal(socket.state, "connecting");
    clock.tick(10_000);
    assert.equal(socket.state, "waiting");
    assert.equal(ws().closed, true);
    reopen();
    assert.equal(socket.state, "connected");
    attempts.at(-2).onopen?.();
    attempts.at(-2).lose();
    assert.equal(socket.state, "connected");
  },

  async paramsThatFailLater() {
    let fails = false;
    const socket = connected({
      params: () => {
        if (fails) throw new RangeError("no params");
        return {};
      },
    });
    fails = true;
    ws().lose();
    clock.tick(1_000);
    assert.equal(socket.state, "waiting");
    assert.equal(reported[0].message, "no params");
    fails = false;
    reopen();
    assert.equal(socket.state, "connected");
  },

  async heartbeats() {
    const socket = connected();
    clock.tick(30_000);
    assert.deepEqual(ws().last, [null, "1", "phoenix", "heartbeat", {}]);
    ws().reply();
    clock.tick(29_999);
    assert.equal(ws().sent.length, 1);
    clock.tick(1);
    assert.equal(ws().sent.length, 2);
    clock.tick(10_000);
    assert.equal(socket.state, "waiting");
  },

  async sleepingPageAsksAgain() {
    const socket = connected();
    clock.tick(30_000);
    clock.sleep(3_600_000);
    assert.equal(socket.state, "connected");
    assert.equal(ws().sent.length, 2);
    ws().reply();
    clock.tick(10_000);
    assert.equal(socket.state, "connected");
  },

  async hiddenPageWaits() {
    const socket = connected();
    ws().lose();
    show("hidden");
    assert.equal(socket.state, "waiting");
    show("visible");
    assert.equal(socket.state, "connecting");
    show("visible");
    assert.equal(attempts.length, 2);
    clock.tick(3_001);
    show("visible"); // it has hung while the page was hidden
    assert.equal(attempts.length, 3);
    assert.equal(attempts[1].closed, true);
    ws().open();
    assert.equal(socket.state, "connected");
  },

  async pageThatIsBackAsksWhetherTheServerIsThere() {
    const events = ["online", "offline", "pageshow"].map((name) => () => page.dispatchEvent(new Event(name)));
    for (const wake of [() => show("visible"), ...events]) {
      const socket = connected();
      wake();
      wake();
      assert.equal(ws().sent.length, 1);
      assert.equal(ws().last[3], "heartbeat");
      clock.tick(10_000);
      assert.equal(socket.state, "waiting");
      socket.disconnect();
    }
  },

  async networkThatGoesStartsNoAttempt() {
    const socket = connected();
    ws().lose();
    page.dispatchEvent(new Event("offline"));
    assert.equal(socket.state, "waiting");
    page.dispatchEvent(new Event("online"));
    assert.equal(socket.state, "connecting");
  },

  async pageDoesNotConnectASocketThatIsClosed() {
    const socket = new Socket("/socket", { WebSocket: Scripted });
    const wake = () => {
      show("visible");
      page.dispatchEvent(new Event("online"));
      page.dispatchEvent(new Event("pageshow"));
      clock.tick(100_000);
    };
    wake();
    assert.equal(attempts.length, 0);
    socket.connect();
    ws().open();
    assert.deepEqual([page.listeners, document.listeners], [3, 1]);
    socket.disconnect();
    assert.deepEqual([page.listeners, document.listeners], [0, 0]);
    wake();
    assert.deepEqual([socket.state, attempts.length], ["disconnected", 1]);
    socket.connect();
    ws().open();
    ws().lose(4000);
    wake();
    assert.deepEqual([socket.state, attempts.length], ["disconnected", 2]);
    assert.deepEqual([page.listeners, document.listeners], [0, 0]);
  },

  async messageThatIsNoFrameEndsTheConnection() {
    const reply = JSON.stringify(["1", "1", "a", "phx_reply", null]);
    const frames = ["", "{}", "7", '"text"', "null", reply, new ArrayBuffer(), Uint8Array.from([9, 1, 1]).buffer];
    for (const data of frames) {
      const socket = connected();
      socket.topic("a").join();
      ws().text(data);
      assert.equal(socket.state, "waiting");
      socket.disconnect();
    }
    assert.equal(reported.length, frames.length);
  },

  async strangersAreIgnored() {
    const topic = joined();
    ws().message([null, null, "b", "told", 1]);
    ws().message(["0", null, "a", "told", 1]);
    ws().message(["0", "0", "a", "phx_error", {}]);
    ws().message(["0", "0", "a", "phx_close", {}]);
    ws().message(["1", "77", "a", "phx_reply", { status: "ok", response: {} }]);
    ws().message([null, "77", "phoenix", "phx_reply", { status: "ok", response: {} }]);
    ws().message(["1", null, "a", "phx_new", {}]);
    ws().message(["1", null, "a", "unheard", {}]);
    assert.deepEqual([topic.got, topic.state, reported], [[], "joined", []]);
  },

  async whatComesBeforeTheReplyToAJoinIsIgnored() {
    const topic = joined(connected(), HISTORY);
    ws().broadcast(1, "e:1");
    ws().lose();
    reopen();
    assert.deepEqual(ws().last.slice(3), ["phx_join", { since: "e:1" }]);
    ws().broadcast(2, "e:2");
    ws().lose();
    reopen();
    assert.deepEqual(ws().last.slice(3), ["phx_join", { since: "e:1" }]);
    const join = ws().last;
    ws().broadcast(2, "e:2");
    ws().reply({ recovered: true, position: "e:1" }, "ok", join);
    ws().broadcast(2, "e:2");
    assert.deepEqual(topic.got, [1, 2]);
    assert.equal(topic.position, "e:2");
  },

  async binaryBroadcastWaitsForItsPosition() {
    const topic = joined(connected(), HISTORY);
    ws().binary(1);
    assert.deepEqual(topic.got, []);
    ws().message([null, null, "a", "phx_position", {}, "e:1"]);
    assert.deepEqual([topic.got, topic.position], [[1], "e:1"]);
    ws().binary(2);
    ws().broadcast(3, "e:3");
    assert.deepEqual([topic.got, topic.position], [[1, 2, 3], "e:3"]);
    ws().binary(4);
    ws().lose();
    reopen();
    assert.deepEqual(ws().last.slice(3), ["phx_join", { since: "e:3" }]);
    ws().reply({ recovered: true, position: "e:3" });
    ws().binary(4);
    ws().message([null, null, "a", "phx_position", {}, "e:4"]);
    assert.deepEqual([topic.got, topic.position], [[1, 2, 3, 4], "e:4"]);
  },

  async handlerMayLeaveBetweenTwoBroadcasts() {
    const topic = joined(connected(), HISTORY);
    topic.on("told", () => topic.leave());
    ws().binary(1);
    ws().broadcast(2, "e:2");
    ws().broadcast(3, "e:3");
    assert.deepEqual(topic.got, [1]);
  },

  async binaryBroadcastWithoutAHistoryComesAtOnce() {
    const topic = joined();
    ws().binary(1);
    assert.deepEqual(topic.got, [1]);
  },

  async positionThatIsTheApplicationsOwnIsLeftAlone() {
    for (const reply of [{ position: { x: 1 }, recovered: true }, { position: "p", recovered: "yes" }, null, "text"]) {
      const topic = joined(connected(), reply);
      assert.equal(topic.position, null);
      ws().lose();
      reopen();
      assert.deepEqual(ws().last.slice(3), ["phx_join", {}]);
    }
  },

  async onceOnlyPushesKeepTheirPlace() {
    const topic = joined();
    const push = (n, once = true) => code(topic.push("add", { n }, { once }));
    push(1);
    const lost = code(topic.push("add", { n: 2 }));
    push(3);
    const first = ws().sent.slice(-3).map((frame) => frame[4]);
    ws().lose();
    push(4);
    reopen();
    ws().reply();
    assert.equal(await lost, "lost");
    const again = ws().sent.slice(-3).map((frame) => frame[4]);
    assert.deepEqual(again.map(({ n }) => n), [1, 3, 4]);
    assert.deepEqual([again[0], again[1]], [first[0], first[2]]);
    assert.equal(first[0].push_id.length, 32);
    assert.equal(new Set(again.map(({ push_id }) => push_id)).size, 3);
  },

  async pushThatIsSentAgainHasItsTimeAnew() {
    const topic = joined();
    const push = topic.push("add", {}, { once: true });
    clock.tick(9_000);
    ws().lose();
    reopen();
    ws().reply();
    clock.tick(9_000);
    ws().reply({ n: 1 });
    assert.deepEqual(await push, { n: 1 });
  },

  async idOfThePageIsKept() {
    const topic = joined();
    code(topic.push("add", { push_id: "mine" }, { once: true }));
    assert.deepEqual(ws().last[4], { push_id: "mine" });
  },

  async answersWithinTheTimeOfEachPush() {
    const topic = joined();
    const [one, two] = [topic.push("add"), topic.push("add", {}, { timeout: 60_000 })];
    const frame = ws().sent.at(-2);
    clock.tick(10_000);
    assert.equal(await code(one), "timeout");
    ws().reply({ n: 1 }, "ok", frame); // too late
    ws().reply({ n: 2 });
    assert.deepEqual(await two, { n: 2 });
  },

  async timeOfAPushBeginsWhenItIsSent() {
    const topic = joined();
    ws().lose();
    const push = topic.push("add");
    for (let attempt = 0; attempt < 30; attempt += 1) {
      clock.tick(1_000);
      ws().lose();
    }
    reopen();
    ws().reply();
    clock.tick(9_999);
    ws().reply({ n: 1 });
    assert.deepEqual(await push, { n: 1 });
  },

  async noMoreThanTheWindowIsWithoutAnAnswer() {
    const topic = joined(connected({ window: 2 }));
    const pushes = [1, 2, 3, 4].map((n) => topic.push("add", n));
    const numbers = () => ws().sent.slice(1).map((frame) => frame[4]);
    assert.deepEqual(numbers(), [1, 2]);
    ws().reply("one", "ok", ws().sent[1]);
    assert.deepEqual(numbers(), [1, 2, 3]);
    ws().reply({ reason: "no" }, "error", ws().sent[2]);
    assert.deepEqual(numbers(), [1, 2, 3, 4]);
    assert.equal(await pushes[0], "one");
    await assert.rejects(pushes[1], /the server has refused add: no/);
  },

  async streamThatLosesItsConnectionFails() {
    const topic = joined();
    const stream = topic.stream("count");
    const first = stream.next();
    ws().reply(1);
    assert.deepEqual(await first, { value: 1, done: false });
    const next = stream.next();
    ws().lose();
    await assert.rejects(next, (error) => error.code === "lost");
  },

  async streamThatIsLeftFreesItsPlace() {
    const topic = joined(connected({ window: 1 }));
    const stream = topic.stream("count");
    const first = stream.next();
    ws().reply(1);
    await first;
    code(topic.push("add", "next"));
    assert.equal(ws().last[3], "count");
    await stream.return();
    assert.equal(ws().last[4], "next");
  },

  async leaveWithoutAnAnswer() {
    const topic = joined();
    const push = code(topic.push("add", {}, { timeout: 60_000 }));
    const left = topic.leave();
    clock.tick(10_000);
    await left;
    assert.deepEqual([topic.state, await push], ["closed", "lost"]);
  },

  async leaveWhileTheConnectionIsLost() {
    const topic = joined();
    const left = topic.leave();
    ws().lose();
    await left;
    assert.equal(topic.state, "closed");
    reopen();
    assert.deepEqual(ws().sent, []);

    const other = joined(connected());
    ws().lose();
    const push = code(other.push("add"));
    await other.leave();
    assert.deepEqual([other.state, await push], ["closed", "closed"]);
    reopen();
    assert.deepEqual(ws().sent, []);
  },

  async joinAfterLeaveIsAFirstOne() {
    const topic = joined();
    const again = [];
    topic.onJoin((_, isAgain) => again.push(isAgain));
    for (const [reply, status] of [[{}, "ok"], [{ reason: "full" }, "error"]]) {
      const left = topic.leave();
      ws().reply();
      await left;
      const joining = topic.join();
      ws().reply(reply, status);
      if (status === "error") assert.equal(await code(joining), "refused");
    }
    assert.deepEqual(again, [false]);
  },

  async heartbeatsEndWithTheirConnection() {
    const socket = connected();
    clock.tick(25_000);
    ws().lose();
    for (let attempt = 0; attempt < 50; attempt += 1) {
      clock.tick(1_900);
      assert.equal(socket.state, "connecting");
      ws().lose();
    }
  },

  async topicThatFailsWhileItIsLeft() {
    const topic = joined();
    const left = topic.leave();
    ws().message(["1", "1", "a", "phx_error", {}]);
    await left;
    assert.equal(topic.state, "closed");
  },

  async joinIsTriedAgainWithDelays() {
    const topic = connected().topic("a");
    const errors = [];
    topic.onError((error) => errors.push(error.code));
    topic.join();
    clock.tick(10_000);
    assert.deepEqual(ws().sent.map((frame) => frame[3]), ["phx_join", "phx_leave"]);
    assert.deepEqual(ws().sent[1].slice(0, 3), ["1", "2", "a"]);
    clock.tick(1_000);
    ws().reply({ reason: "unavailable" }, "error");
    clock.tick(1_000);
    ws().reply();
    assert.equal(topic.state, "joined");
    ws().message([ws().sent.at(-1)[0], null, "a", "phx_error", {}]);
    assert.equal(topic.state, "joining");
    assert.deepEqual(errors, ["timeout", "refused", "crashed"]);
    assert.deepEqual(delays.map(([attempt]) => attempt), [1, 2, 3]);
    ws().lose(); // the delay of the topic is over, too
    reopen();
    assert.equal(ws().sent.length, 1);
  },

  async listenerMayDisconnect() {
    const socket = connected();
    const topic = joined(socket);
    topic.onError(() => socket.disconnect());
    topic.on("bye", () => socket.disconnect());
    ws().message([null, null, "a", "bye", {}]);
    assert.deepEqual([socket.state, topic.state], ["disconnected", "closed"]);
    socket.connect();
    ws().open();
    topic.join();
    ws().reply();
    ws().message([ws().last[0], null, "a", "phx_error", {}]);
    assert.deepEqual([socket.state, topic.state], ["disconnected", "closed"]);
    clock.tick(100_000);
    assert.equal(attempts.length, 2);
  },

  async listenerMayDisconnectWhenTheConnectionIsLost() {
    const socket = connected();
    const topic = joined(socket);
    const states = [];
    socket.onState((state) => states.push(state));
    topic.onClose(() => socket.disconnect());
    topic.leave();
    ws().lose();
    assert.deepEqual([states, socket.state], [["disconnected"], "disconnected"]);
    clock.tick(100_000);
    assert.equal(attempts.length, 1);
  },

  async listenerMayConnectAgainAfterAFinalCode() {
    const socket = connected();
    socket.onState((state) => state === "disconnected" && socket.connect());
    ws().lose(4001);
    assert.deepEqual([socket.state, attempts.length], ["connecting", 2]);
  },

  async differencesOfPresenceBeforeItsStateCount() {
    const topic = connected().topic("a");
    const presence = new Presence(topic);
    const [joins, leaves] = [[], []];
    presence.onJoin((key, metas) => joins.push([key, metas.length]));
    presence.onLeave((key, metas) => leaves.push([key, metas.length]));
    const metas = (...refs) => ({ metas: refs.map((phx_ref) => ({ phx_ref })) });
    const keys = () => presence.list().map(({ key, metas }) => [key, ...metas.map(({ phx_ref }) => phx_ref)]);
    topic.join();
    ws().reply();
    ws().message([null, null, "a", "presence_diff", { joins: { bob: metas("2") }, leaves: {} }]);
    assert.deepEqual(keys(), []);
    ws().message([null, null, "a", "presence_state", { ada: metas("1"), bob: metas("2") }]);
    assert.deepEqual(keys(), [["ada", "1"], ["bob", "2"]]);
    assert.deepEqual(joins, [["ada", 1], ["bob", 1]]);
    // An update: the same key comes with a new reference, and goes with the old one.
    ws().message([null, null, "a", "presence_diff", { joins: { ada: metas("3") }, leaves: { ada: metas("1") } }]);
    assert.deepEqual(keys(), [["ada", "3"], ["bob", "2"]]);
    ws().message([null, null, "a", "presence_diff", { joins: {}, leaves: { ada: metas("1"), eve: metas("9") } }]);
    assert.deepEqual(leaves, [["ada", 1]]);
    // After an outage only the differences are told.
    ws().lose();
    reopen();
    ws().reply();
    ws().message([null, null, "a", "presence_diff", { joins: {}, leaves: { bob: metas("0") } }]);
    ws().message([null, null, "a", "presence_diff", { joins: { zoe: metas("8") }, leaves: { zoe: metas("8") } }]);
    assert.deepEqual(keys(), [["ada", "3"], ["bob", "2"]]);
    assert.equal(joins.length, 3);
    ws().text('[null,null,"a","presence_state",{"bob":{"metas":[{"phx_ref":"2"}]},"__proto__":{"metas":[{"phx_ref":"5"}]}}]');
    assert.deepEqual(keys(), [["bob", "2"], ["__proto__", "5"]]);
    assert.deepEqual(joins.slice(3), [["__proto__", 1], ["zoe", 1]]);
    ws().message([null, null, "a", "presence_state", {}]);
    assert.deepEqual(keys(), []);
    assert.deepEqual(leaves, [["ada", 1], ["ada", 1], ["zoe", 1], ["bob", 1], ["__proto__", 1]]);
  },
};

await scenarios[scenario]();
console.log("passed");
process.exit(0);
