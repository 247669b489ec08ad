// Topics: many channels over one WebSocket, for trio_channels.topics and every other server of the Phoenix Channels
// protocol, version 2. If WebSockets are blocked, topics-sse.js takes their place. The rules:
//
// 1. A socket that has been connected comes back until disconnect(), or until the server closes it with a final code.
// 2. A topic that has been joined is joined again, with the position of the last broadcast that the page has got. A server
//    with a history then sends the missed broadcasts. `recovered` in the reply tells whether these are all.
// 3. Broadcasts count from the reply to the join on: earlier ones belong to an earlier join, and come again.
// 4. A push waits until its topic is joined. Once sent, it is answered, or it fails: "timeout" or "lost", when nobody
//    knows whether the server has handled it. A push with `once` is sent again instead, with the same `push_id`.
// 5. Pushes of a topic are sent in order. At most `window` of them are without an answer.

const SOCKET_TOPIC = "phoenix";
const MAX_FIELD = 255; // of a topic's or an event's name; the server closes the socket at a longer one
const STABLE = 10_000; // milliseconds; after a connection that has lasted as long, the delays begin anew
const HUNG = 3_000; // milliseconds; an attempt of this age is given up when the page is looked at or the network is back
/** The close codes for a message that the server does not take; it would not take it a second time either. */
const UNACCEPTABLE = [1003, 1007, 1009];
/** The server's reasons for an error reply to a join that pass. */
const TEMPORARY = ["unavailable", "join crashed", "too many pushes are waiting"];

const DEFAULTS = {
  params: {},
  authToken: null,
  timeout: 10_000,
  heartbeat: 30_000,
  window: 32,
  maxQueue: 1_000,
  backOff,
  isFinal: (code) => code >= 4000 && code <= 4999,
  WebSocket: globalThis.WebSocket,
  fallback: () => import("./topics-sse.js"),
  fallbackTries: 2,
  fallbackAfter: 5_000,
  fallbackMemory: 600_000,
};

/**
 * The milliseconds until the next attempt: at random, from half a second on, and up to half a minute.
 * @param {number} attempt counts from 1
 * @param {number} [code] the close code: after 1012, "service restart", at least one second; after 1013, "try again
 *   later", at least five
 * @returns {number}
 */
export function backOff(attempt, code) {
  const most = Math.min(30_000, 1_000 * 2 ** (attempt - 1));
  const [low, high] = { 1012: [1_000, 5_000], 1013: [5_000, 15_000] }[code] ?? [0, 0];
  const least = Math.max(most / 2, low);
  return least + Math.random() * (Math.max(most, high) - least);
}

/** Why a join or push has failed. docs/reference/topics-js.md has each `code`; `response` is the server's answer. */
export class TopicError extends Error {
  constructor(code, message, response = null) {
    super(message);
    this.name = "TopicError";
    this.code = code;
    this.response = response;
  }
}

// -- frames -----------------------------------------------------------------------------------------------------------

const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder();

/** A payload as it is sent: JSON, or bytes. A copy, so that the page may go on with its own. */
function encodePayload(payload) {
  if (payload instanceof ArrayBuffer) return new Uint8Array(payload.slice());
  if (ArrayBuffer.isView(payload)) return new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength).slice();
  const json = JSON.stringify(payload);
  if (json === undefined) throw new TypeError(`expected a payload that JSON can hold, or bytes; got ${typeof payload}`);
  return json;
}

function encodeFrame(joinRef, ref, topic, event, payload) {
  if (typeof payload === "string") return `${JSON.stringify([joinRef, ref, topic, event]).slice(0, -1)},${payload}]`;
  const fields = [joinRef ?? "", ref ?? "", topic, event].map((field) => utf8.encode(field));
  const parts = [[0, ...fields.map((field) => field.length)], ...fields, payload];
  const frame = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let end = 0;
  for (const part of parts) {
    frame.set(part, end);
    end += part.length;
  }
  return frame;
}

/** The fields of the server's binary frames, by their kind: push, reply, broadcast. */
const FIELDS = [
  ["joinRef", "topic", "event"],
  ["joinRef", "ref", "topic", "status"],
  ["topic", "event"],
];

function decodeFrame(data) {
  if (typeof data === "string") {
    const fields = JSON.parse(data);
    if (!Array.isArray(fields)) throw new TypeError(`expected a frame; got ${data}`);
    const [joinRef, ref, topic, event, payload, position = null] = fields;
    return { joinRef, ref, topic, event, payload, position };
  }
  const bytes = new Uint8Array(data);
  const names = FIELDS[bytes[0]];
  const frame = { joinRef: null, ref: null, position: null, isBinaryBroadcast: bytes[0] === 2 };
  let end = 1 + names.length;
  names.forEach((name, number) => {
    frame[name] = fromUtf8.decode(bytes.subarray(end, (end += bytes[1 + number])));
  });
  const content = bytes.slice(end);
  return "status" in frame
    ? { ...frame, event: "phx_reply", payload: { status: frame.status, response: content } }
    : { ...frame, payload: content };
}

/** A name that the server takes. */
function checkName(kind, name) {
  if (typeof name === "string" && name !== "" && utf8.encode(name).length <= MAX_FIELD) return;
  throw new TypeError(`expected as the name of ${kind} a string of 1 to ${MAX_FIELD} bytes; got ${JSON.stringify(name)}`);
}

// -- callbacks --------------------------------------------------------------------------------------------------------

/** Functions of the page. One that fails is reported, and does not keep others from being called. */
class Listeners {
  #functions = new Set();

  add(listener) {
    if (typeof listener !== "function") throw new TypeError(`expected a function; got ${typeof listener}`);
    const own = (...args) => listener(...args); // so that a function that is added twice can be removed once
    this.#functions.add(own);
    return () => void this.#functions.delete(own);
  }

  call(...args) {
    for (const listener of [...this.#functions]) {
      try {
        listener(...args);
      } catch (error) {
        report(error);
      }
    }
  }
}

function report(error) {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}

/** The time until the next attempt. */
class Retry {
  #backOff;
  #failures = 0;
  #since = null;
  #timer;

  constructor(backOff) {
    this.#backOff = backOff;
  }

  succeeded() {
    this.#since = Date.now();
  }

  later(action, code) {
    this.cancel();
    if (this.#since !== null && Date.now() - this.#since >= STABLE) this.#failures = 0;
    this.#since = null;
    this.#failures += 1;
    this.#timer = setTimeout(action, this.#backOff(this.#failures, code));
  }

  cancel() {
    clearTimeout(this.#timer);
  }

  reset() {
    this.cancel();
    this.#failures = 0;
  }
}

// -- the socket -------------------------------------------------------------------------------------------------------

/** One WebSocket that carries many topics, and comes back when it is lost. See docs/reference/topics-js.md. */
export class Socket {
  #url;
  #options;
  #topics = new Map(); // the internal side of each topic that is not closed, by its name
  #listeners = new Listeners();
  /** @type {"disconnected" | "connecting" | "connected" | "waiting"} */
  #state = "disconnected";
  #ws = null;
  #fallsBack = false; // the current attempt does, or the connection
  #hasOpened = false; // since the page was loaded
  #failures = 0; // connections and attempts that have ended
  #memory; // the key of the tab's storage: until when its pages begin with the fallback
  #isRemembered = false;
  #began = 0; // when the current attempt began
  #retry;
  #timer; // of the attempt, then of the heartbeats
  #beat = null; // the reference of the heartbeat that has no answer yet
  #refs = 0;

  /**
   * @param {string | URL} url the address without "/websocket", such as "/socket"
   * @param {object} [options] see docs/reference/topics-js.md
   */
  constructor(url, options = {}) {
    for (const name of Object.keys(options)) {
      if (!Object.hasOwn(DEFAULTS, name)) {
        throw new TypeError(`unknown option ${JSON.stringify(name)}; there are ${Object.keys(DEFAULTS).join(", ")}`);
      }
    }
    this.#url = url;
    this.#options = { ...DEFAULTS, ...options };
    this.#retry = new Retry(this.#options.backOff);
    if (typeof this.#options.WebSocket !== "function" && this.#options.fallbackTries > 0) {
      throw new TypeError("there is no WebSocket here: give the option WebSocket, or fallbackTries: 0");
    }
    this.#memory = `topics.js ${url}`;
    try {
      this.#isRemembered = Number(sessionStorage.getItem(this.#memory)) > Date.now();
    } catch {} // there is no storage here
    if (this.#isRemembered) this.#failures = this.#options.fallbackTries;
  }

  /** "waiting": for the next attempt. */
  get state() {
    return this.#state;
  }

  /**
   * Connect, and come back whenever the connection is lost. Does nothing if that goes on already.
   * @throws {TypeError | SyntaxError} the address is none
   */
  connect() {
    if (this.#state !== "disconnected") return;
    this.#retry.reset();
    this.#open();
    this.#listen("addEventListener");
    this.#tell();
  }

  /** Close the connection, and every topic. Nothing comes back until connect(). */
  disconnect() {
    if (this.#state !== "disconnected") this.#end(1000, "disconnect() was called");
  }

  /**
   * A topic, which join() joins. Register your handlers before.
   * @param {string} name such as "room:lobby"
   * @param {object | (() => object)} [params] of each join
   * @returns {Topic}
   */
  topic(name, params = {}) {
    checkName("a topic", name);
    return new Topic(this.#link, name, params);
  }

  /**
   * Have a function called with each new state, and `{code, reason}` of the connection that has ended, or null.
   * @returns {() => void} ends that
   */
  onState(listener) {
    return this.#listeners.add(listener);
  }

  /** The part of the socket that topics use. */
  #link = {
    attach: (name, side) => {
      const isFree = !this.#topics.has(name);
      if (isFree) this.#topics.set(name, side);
      return isFree;
    },
    detach: (name) => void this.#topics.delete(name),
    isUp: () => this.#state === "connected",
    nextRef: () => String(++this.#refs),
    send: (...frame) => this.#ws.send(encodeFrame(...frame)),
    options: () => this.#options,
  };

  #tell(detail = null) {
    this.#listeners.call(this.#state, detail);
  }

  #open() {
    const { WebSocket, timeout, fallback, fallbackTries, fallbackAfter } = this.#options;
    const [url, protocols] = [this.#address(), this.#protocols()];
    // Until something has opened, WebSocket and fallback take turns: the server may have been away.
    const turn = this.#failures - fallbackTries;
    if (!this.#hasOpened) this.#fallsBack = fallback !== null && turn >= 0 && (turn % 2 === 0 || fallbackTries === 0);
    if (this.#fallsBack) this.#load(fallback, url, protocols);
    else this.#attach(new WebSocket(url, protocols));
    this.#began = Date.now();
    this.#state = "connecting";
    const mayBeBlocked = fallback !== null && !this.#hasOpened && !this.#fallsBack;
    this.#timer = setTimeout(() => {
      if (mayBeBlocked) this.#failures = Math.max(this.#failures, fallbackTries - 1);
      this.#lost(1006, "the server has not answered in time");
    }, mayBeBlocked ? Math.min(timeout, fallbackAfter) : timeout);
  }

  #attach(ws) {
    ws.binaryType = "arraybuffer";
    ws.onopen = () => this.#opened();
    ws.onmessage = ({ data }) => this.#received(data);
    ws.onclose = ({ code, reason, isMissing = false }) => {
      if (isMissing) this.#options.fallback = null;
      this.#lost(code, reason);
    };
    ws.onerror = () => {}; // its close event follows
    this.#ws = ws;
  }

  #load(fallback, url, protocols) {
    const loading = { close() {} };
    const ifCurrent = (action) => (result) => this.#ws === loading && action(result);
    this.#ws = loading;
    fallback().then(
      ifCurrent((module) => this.#attach(new module.default(url, protocols))),
      ifCurrent(() => this.#lost(1006, "the fallback could not be loaded")),
    );
  }

  #reopen() {
    this.#release();
    try {
      this.#open();
    } catch (error) { // of a function of the page that gives the parameters
      report(error);
      this.#lost(1006, "the address could not be made");
      return;
    }
    this.#tell();
  }

  #address() {
    const url = new URL(this.#url, globalThis.location?.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.pathname = `${url.pathname.replace(/\/$/, "")}/websocket`;
    for (const [name, value] of Object.entries({ ...resolve(this.#options.params), vsn: "2.0.0" })) {
      url.searchParams.set(name, value);
    }
    return url.href;
  }

  #protocols() {
    const token = resolve(this.#options.authToken);
    if (token === null || token === undefined) return ["phoenix"];
    const encoded = btoa(String.fromCharCode(...utf8.encode(token)));
    const urlSafe = encoded.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    return ["phoenix", `base64url.bearer.phx.${urlSafe}`];
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#state = "connected";
    this.#retry.succeeded();
    this.#beatLater();
    if (!this.#hasOpened) this.#remember();
    this.#hasOpened = true;
    for (const topic of [...this.#topics.values()]) topic.up();
    this.#tell();
  }

  #remember() {
    if (this.#fallsBack === this.#isRemembered) return;
    const until = this.#fallsBack ? Date.now() + this.#options.fallbackMemory : 0;
    try {
      sessionStorage.setItem(this.#memory, `${until}`);
    } catch {} // there is no storage here
  }

  #received(data) {
    try {
      const frame = decodeFrame(data);
      if (frame.topic !== SOCKET_TOPIC) this.#topics.get(frame.topic)?.receive(frame);
      else if (frame.ref === this.#beat) this.#beatLater();
    } catch (error) {
      report(error);
      this.#lost(1002, "the server has sent a message that is no frame");
    }
  }

  // -- its end --

  #release() {
    clearTimeout(this.#timer);
    this.#retry.cancel();
    this.#beat = null;
    const ws = this.#ws;
    this.#ws = null;
    if (ws === null) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.close(1000);
  }

  #lost(code, reason) {
    if (this.#options.isFinal(code)) {
      this.#end(code, reason);
      return;
    }
    this.#release();
    this.#failures += 1;
    this.#state = "waiting";
    this.#retry.later(() => this.#reopen(), code);
    for (const topic of [...this.#topics.values()]) topic.down(code);
    if (this.#state === "waiting") this.#tell({ code, reason });
  }

  #end(code, reason) {
    this.#release();
    this.#listen("removeEventListener");
    this.#state = "disconnected";
    const error = new TopicError("closed", `the socket is closed (code ${code}${reason && `, ${reason}`})`);
    for (const topic of [...this.#topics.values()]) topic.end(error);
    if (this.#state === "disconnected") this.#tell({ code, reason });
  }

  // -- heartbeats --

  /** Browsers slow down chains of timers in hidden pages, but not timers that the handler of a message has started. */
  #beatLater() {
    clearTimeout(this.#timer);
    this.#beat = null;
    this.#timer = setTimeout(() => this.#beatNow(), this.#options.heartbeat);
  }

  #beatNow() {
    clearTimeout(this.#timer);
    const timeout = Math.min(this.#options.timeout, this.#options.heartbeat);
    const sent = Date.now();
    this.#beat = this.#link.nextRef();
    this.#link.send(null, this.#beat, SOCKET_TOPIC, "heartbeat", "{}");
    this.#timer = setTimeout(() => {
      // Much later than it should be: the page, or the machine, was asleep, and the answer may be there.
      if (Date.now() - sent > 2 * timeout) this.#beatNow();
      else this.#lost(1006, "the server has not answered a heartbeat");
    }, timeout);
  }

  // -- the page --

  #listen(method) {
    globalThis.document?.[method]?.("visibilitychange", this.#wake);
    for (const event of ["online", "offline", "pageshow"]) globalThis[method]?.(event, this.#wake);
  }

  /** The page is looked at, or the network has changed: do not wait for a timer. */
  #wake = ({ type }) => {
    if (type === "visibilitychange" && document.visibilityState === "hidden") return;
    if (this.#state === "connected") {
      if (this.#beat === null) this.#beatNow();
    } else if (type !== "offline" && (this.#state === "waiting" || Date.now() - this.#began > HUNG)) this.#reopen();
  };
}

/** An option that may be a function. */
function resolve(option) {
  return typeof option === "function" ? option() : option;
}

// -- topics -----------------------------------------------------------------------------------------------------------

/** A topic of a socket; made by Socket.topic(). See docs/reference/topics-js.md. */
class Topic {
  /** The topic's name. */
  name;
  /** The position of the last broadcast that the page has got; null without a history. You may keep it, and set it. */
  position = null;

  #link;
  #params;
  /** @type {"closed" | "joining" | "joined" | "leaving"} */
  #state = "closed";
  #handlers = new Map(); // Listeners by event
  #onJoin = new Listeners();
  #onError = new Listeners();
  #onClose = new Listeners();
  #joinRef = null;
  #joining = null; // {promise, resolve, reject} of join()
  #leaving = null; // the same of leave(), with its ref
  #again = false; // it has been joined before, since join()
  #retry;
  #timeout; // of each join, in milliseconds
  #timer; // of the join, or of the leave
  #queue = []; // pushes that are not sent
  #sent = new Map(); // pushes without an answer, by reference, in the order in which they were sent
  #keepsHistory = false;
  #held = null; // a binary broadcast whose position follows

  /** For Socket.topic(). */
  constructor(link, name, params) {
    this.#link = link;
    this.#retry = new Retry(link.options().backOff);
    this.name = name;
    this.#params = params;
  }

  /** "joining": also while it waits to be joined again. */
  get state() {
    return this.#state;
  }

  /**
   * Join, and join again after each outage.
   * @param {{timeout?: number}} [options] milliseconds for the answer to each attempt
   * @returns {Promise<any>} the first reply. Waits for the connection; fails if the server refuses, or the topic is closed.
   */
  join({ timeout = this.#link.options().timeout } = {}) {
    const refuse = (why) => Promise.reject(new TopicError("closed", `cannot join ${this.name}: ${why}`));
    if (this.#state === "leaving") return refuse("it is being left; await leave() first");
    if (this.#state === "closed") {
      if (!this.#link.attach(this.name, this.#side)) return refuse("another object has joined it; leave that first");
      this.#again = false;
      this.#timeout = timeout;
      this.#retry.reset();
      this.#joining = deferred();
      this.#state = "joining";
      if (this.#link.isUp()) this.#sendJoin();
    }
    return this.#joining.promise;
  }

  /**
   * Leave. Pushes that are sent are answered before; those that wait fail.
   * @returns {Promise<void>} fulfilled when the server has answered, or when nothing is left to leave
   */
  leave() {
    if (this.#state === "closed") return Promise.resolve();
    if (this.#state === "leaving") return this.#leaving.promise;
    const error = this.#closed("leave() was called");
    if (!this.#link.isUp() || this.#joinRef === null) {
      this.#end(error);
      return Promise.resolve();
    }
    this.#settleJoin(error);
    this.#retry.cancel();
    this.#clearTimer();
    this.#failQueue(error);
    this.#state = "leaving";
    this.#leaving = { ...deferred(), ref: this.#link.nextRef() };
    this.#send(this.#leaving.ref, "phx_leave", "{}");
    this.#timer = setTimeout(() => this.#end(error), this.#link.options().timeout);
    return this.#leaving.promise;
  }

  /**
   * Have a function called with the payload of each event of that name.
   * @returns {() => void} ends that
   */
  on(event, handler) {
    if (!this.#handlers.has(event)) this.#handlers.set(event, new Listeners());
    return this.#handlers.get(event).add(handler);
  }

  /** Have a function called with the reply to each join, and whether the topic was joined before. Returns its end. */
  onJoin(listener) {
    return this.#onJoin.add(listener);
  }

  /** Have a function called with the TopicError of each failure after which the topic is joined again. Returns its end. */
  onError(listener) {
    return this.#onError.add(listener);
  }

  /** Have a function called with the TopicError that says why the topic is closed. Returns its end. */
  onClose(listener) {
    return this.#onClose.add(listener);
  }

  /**
   * Send an event to the topic's handler in the server.
   * @param {string} event
   * @param {any} [payload] for JSON, or an ArrayBuffer or a view of one
   * @param {{timeout?: number, once?: boolean, queue?: boolean}} [options] `timeout`: milliseconds from the sending on.
   *   `once`: add a `push_id` to the payload, and send it again after an outage. `queue: false`: fail if it cannot be
   *   sent at once
   * @returns {Promise<any>} the reply; fails with a TopicError
   */
  push(event, payload = {}, options = {}) {
    return new Promise((resolve, reject) => {
      this.#submit(event, payload, options, {
        fail: reject,
        reply: (response) => {
          resolve(response);
          return true;
        },
      });
    });
  }

  /**
   * Send an event whose handler answers with a stream of replies. To end the loop is to ignore further ones.
   * @param {{timeout?: number, queue?: boolean, once?: false}} [options] as push(); `timeout` is that of each reply
   * @returns {AsyncGenerator<any>}
   */
  async *stream(event, payload = {}, options = {}) {
    if (options.once) throw new TypeError("a stream cannot be sent again: expected no `once`");
    const values = [];
    let [isOver, error, wake] = [false, null, null];
    const push = this.#submit(event, payload, options, {
      fail: (why) => {
        error = why;
        wake?.();
      },
      reply: (response, isLast) => {
        isOver = isLast;
        if (!isLast) values.push(response);
        wake?.();
        return isLast;
      },
    });
    try {
      while (true) {
        while (values.length > 0) yield values.shift();
        if (error !== null) throw error;
        if (isOver) return;
        await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      this.#forget(push);
    }
  }

  /**
   * Send an event without a reply, if that is possible at once.
   * @returns {boolean} whether it was sent; nobody knows whether it has arrived
   */
  tell(event, payload = {}) {
    checkEvent(event);
    const encoded = encodePayload(payload);
    if (this.#state !== "joined") return false;
    this.#send(null, event, encoded);
    return true;
  }

  // -- for the socket --

  #side = {
    up: () => this.#sendJoin(),
    down: (code) => {
      const error = this.#closed("the connection was lost");
      if (this.#state === "leaving") this.#end(error);
      else this.#fall(!UNACCEPTABLE.includes(code));
    },
    end: (error) => this.#end(error),
    receive: (frame) => this.#receive(frame),
  };

  #receive({ joinRef, ref, event, payload, position, isBinaryBroadcast = false }) {
    if (event === "phx_reply") this.#replied(ref, payload);
    else if (joinRef !== null && joinRef !== this.#joinRef) return; // of an earlier join
    else if (event === "phx_close") this.#end(this.#closed("the server has ended it"));
    else if (event === "phx_error") this.#crashed();
    else if (this.#state === "joined") this.#deliver(event, payload, position, isBinaryBroadcast);
  }

  #deliver(event, payload, position, isBinaryBroadcast) {
    // Its position follows. If the connection is lost before that, the broadcast comes again.
    const held = isBinaryBroadcast || position !== null ? this.#held : null;
    if (held !== null) this.#held = null;
    if (position !== null) this.position = position;
    if (held !== null) this.#handlers.get(held.event)?.call(held.payload);
    if (this.#state !== "joined") return; // its handler has left
    if (isBinaryBroadcast && this.#keepsHistory) this.#held = { event, payload };
    else if (!event.startsWith("phx_")) this.#handlers.get(event)?.call(payload);
  }

  // -- joining --

  #sendJoin() {
    const { nextRef } = this.#link;
    this.#state = "joining";
    let params;
    try {
      const given = resolve(this.#params);
      params = encodePayload(this.position === null ? given : { ...given, since: this.position });
    } catch (error) { // of a function of the page, or of JSON
      this.#end(error);
      return;
    }
    this.#joinRef = nextRef();
    this.#send(this.#joinRef, "phx_join", params);
    this.#timer = setTimeout(() => {
      this.#send(nextRef(), "phx_leave", "{}"); // the server may still be at it
      this.#joinLater(new TopicError("timeout", `the server has not answered the join of ${this.name} in time`));
    }, this.#timeout);
  }

  #joinLater(error) {
    this.#fall(true);
    this.#retry.later(() => this.#sendJoin());
    this.#onError.call(error);
  }

  #joinReplied(status, response) {
    this.#clearTimer();
    if (status !== "ok") {
      const error = new TopicError("refused", `the server has refused to join ${this.name}: ${show(response)}`, response);
      if (TEMPORARY.includes(response?.reason)) this.#joinLater(error);
      else this.#end(error);
      return;
    }
    this.#retry.succeeded();
    this.#state = "joined";
    this.#keepsHistory = typeof response?.recovered === "boolean" && typeof response.position === "string";
    if (this.#keepsHistory) this.position = response.position;
    const again = this.#again;
    this.#again = true;
    this.#joining.resolve(response);
    this.#flush();
    this.#onJoin.call(response, again);
  }

  /** The topic has failed in the server. */
  #crashed() {
    if (this.#state === "leaving") {
      this.#end(this.#closed("it has failed while it was left"));
      return;
    }
    // Handlers run in order: the oldest push may be the reason. It is sent again once, and not for ever.
    const [oldest] = this.#sent.values();
    if (oldest !== undefined && ++oldest.crashes > 1) oldest.once = false;
    this.#joinLater(new TopicError("crashed", `${this.name} has failed in the server`));
  }

  /** It is joined no more, and will be again. */
  #fall(resends) {
    this.#clearTimer();
    this.#retry.cancel();
    this.#joinRef = this.#held = null;
    this.#state = "joining";
    const sent = [...this.#sent.values()];
    this.#sent.clear();
    for (const push of sent) clearTimeout(push.timer);
    this.#queue.unshift(...sent.filter((push) => push.once && resends));
    for (const push of sent) {
      if (!push.once || !resends) push.fail(this.#lost(push));
    }
  }

  #end(error) {
    this.#link.detach(this.name);
    this.#fall(false);
    this.#state = "closed";
    this.#failQueue(error);
    this.#settleJoin(error);
    this.#leaving?.resolve();
    this.#leaving = null;
    this.#onClose.call(error);
  }

  #settleJoin(error) {
    if (!this.#again) this.#joining.reject(error); // otherwise it is fulfilled
  }

  #closed(why) {
    return new TopicError("closed", `the topic ${this.name} is closed: ${why}`);
  }

  #clearTimer() {
    clearTimeout(this.#timer);
  }

  // -- pushes --

  #submit(event, payload, { timeout = this.#link.options().timeout, once = false, queue = true }, answers) {
    checkEvent(event);
    const push = { event, timeout, once, ...answers, crashes: 0, ref: null, timer: undefined };
    push.payload = encodePayload(once ? withId(payload) : payload);
    if (this.#state === "closed" || this.#state === "leaving") {
      throw new TopicError("closed", `${event} was not sent: the topic ${this.name} is ${this.#state}; expected join() before`);
    }
    const { window, maxQueue } = this.#link.options();
    const mustWait = this.#state !== "joined" || this.#sent.size >= window;
    if (mustWait && !queue) {
      throw new TopicError("offline", `${event} was not sent: it cannot be sent at once, and \`queue\` is false`);
    }
    if (mustWait && this.#queue.length >= maxQueue) {
      throw new TopicError("full", `${event} was not sent: ${maxQueue} pushes to ${this.name} wait already`);
    }
    this.#queue.push(push);
    this.#flush();
    return push;
  }

  #flush() {
    const { nextRef, options } = this.#link;
    while (this.#state === "joined" && this.#queue.length > 0 && this.#sent.size < options().window) {
      const push = this.#queue.shift();
      push.ref = nextRef();
      this.#sent.set(push.ref, push);
      this.#send(push.ref, push.event, push.payload);
      this.#startTimer(push);
    }
  }

  #send(ref, event, payload) {
    this.#link.send(this.#joinRef, ref, this.name, event, payload);
  }

  #startTimer(push) {
    clearTimeout(push.timer);
    push.timer = setTimeout(() => {
      this.#forget(push);
      push.fail(new TopicError("timeout", `the server has not answered ${push.event} to ${this.name} in time`));
    }, push.timeout);
  }

  #replied(ref, { status, response }) {
    if (ref === null) return; // to a tell(); while no join is under way its reference is null, too
    if (ref === this.#joinRef && this.#state === "joining") this.#joinReplied(status, response);
    else if (ref === this.#leaving?.ref) this.#end(this.#closed("leave() was called"));
    const push = this.#sent.get(ref);
    if (push === undefined) return;
    if (status !== "ok" && status !== "end") {
      this.#forget(push);
      push.fail(new TopicError("refused", `the server has refused ${push.event}: ${show(response)}`, response));
    } else if (push.reply(response, status === "end")) this.#forget(push);
    else this.#startTimer(push);
  }

  /** The push has ended, in whatever way: the next one may be sent. */
  #forget(push) {
    clearTimeout(push.timer);
    this.#sent.delete(push.ref);
    this.#flush();
  }

  #failQueue(error) {
    for (const push of this.#queue.splice(0)) push.fail(push.ref === null ? error : this.#lost(push));
  }

  #lost(push) {
    return new TopicError("lost", `no answer to ${push.event}: nobody knows whether the server has handled it`);
  }
}

function checkEvent(event) {
  checkName("an event", event);
  if (event.startsWith("phx_")) throw new TypeError(`expected an event that does not begin with "phx_"; got ${event}`);
}

function show(response) {
  return response?.reason ?? JSON.stringify(response);
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

/** The payload with an id, by which a server knows a push that comes twice. */
function withId(payload) {
  if (payload === null || Object.getPrototypeOf(payload) !== Object.prototype) {
    throw new TypeError("expected an object as the payload of a push with `once`, which adds a `push_id` to it");
  }
  // Not randomUUID(), which pages without TLS do not have.
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
  return { push_id: id.join(""), ...payload };
}

// -- presence ---------------------------------------------------------------------------------------------------------

/** Who is in a topic, as its server shows it: keys, each with a list of metas, one for each tab or device. */
export class Presence {
  #metas = new Map(); // by key
  #onJoin = new Listeners();
  #onLeave = new Listeners();
  #onChange = new Listeners();
  #early = []; // changes that come before the state; null if it is there

  /** @param {Topic} topic */
  constructor(topic) {
    topic.on("presence_state", (state) => this.#sync(state));
    topic.on("presence_diff", (diff) => {
      if (this.#early === null) this.#apply(diff);
      else this.#early.push(diff);
    });
    topic.onJoin(() => (this.#early = [])); // its state follows
  }

  /** Everybody who is there: `[{key, metas}]`, in the order in which they came. */
  list() {
    return [...this.#metas].map(([key, metas]) => ({ key, metas }));
  }

  /** The metas of a key; an empty list if it is not there. */
  get(key) {
    return this.#metas.get(key) ?? [];
  }

  /** Have a function called with each key, its metas that are new, and its others. Returns its end. */
  onJoin(listener) {
    return this.#onJoin.add(listener);
  }

  /** Have a function called with each key, its metas that have gone, and its others. Returns its end. */
  onLeave(listener) {
    return this.#onLeave.add(listener);
  }

  /** Have a function called with the new list() after each change. Returns its end. */
  onChange(listener) {
    return this.#onChange.add(listener);
  }

  #sync(state) {
    const gone = ([key, metas]) => [key, { metas: without(metas, state[key]?.metas ?? []) }];
    const leaves = Object.fromEntries([...this.#metas].map(gone));
    const early = this.#early ?? [];
    this.#early = null;
    this.#apply({ joins: state, leaves });
    for (const diff of early) this.#apply(diff);
  }

  #apply({ joins, leaves }) {
    for (const [key, { metas }] of Object.entries(joins)) {
      const [others, joined] = [this.get(key), without(metas, this.get(key))];
      if (joined.length === 0) continue;
      this.#metas.set(key, [...others, ...joined]);
      this.#onJoin.call(key, joined, others);
    }
    for (const [key, { metas }] of Object.entries(leaves)) {
      const others = without(this.get(key), metas);
      const left = without(this.get(key), others);
      if (left.length === 0) continue;
      if (others.length > 0) this.#metas.set(key, others);
      else this.#metas.delete(key);
      this.#onLeave.call(key, left, others);
    }
    this.#onChange.call(this.list());
  }
}

/** The metas of one list that are not in another. */
function without(metas, others) {
  const refs = new Set(others.map((meta) => meta.phx_ref));
  return metas.filter((meta) => !refs.has(meta.phx_ref));
}
