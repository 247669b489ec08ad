// The fallback of topics.js, for networks that block WebSockets: a connection over plain HTTP. It has the part of
// WebSocket's interface that topics.js uses. The server is a trio_channels.topics.LongPolling. The rules:
//
// 1. A first GET opens a session. A second one is answered with a stream of server-sent events: the server's messages.
// 2. The server numbers its messages. A stream that is cut is taken up again behind the last message that has come.
// 3. Messages to the server are posted, one post at a time. They are numbered, too, so that a post can be repeated.
// 4. The event "close" has the close code. If the session cannot be reached, the code is 1006, as for a WebSocket.

const ATTEMPTS = 3; // to take up the stream, or to post; if all fail the connection is lost
const DELAY = 250; // milliseconds between two
const MOST = 65_536; // characters of a post; a longer message goes alone
const GONE = 410;

export default class EventStreamConnection {
  /** Functions of topics.js. */
  onopen = null;
  onmessage = null;
  onclose = null;

  #url;
  #isOpen = false;
  #isOver = false;
  #reading = new AbortController();
  #received = 0; // the number of the last message from the server
  #posted = 0; // the number of the last message that the server has taken
  #queue = []; // messages that it has not taken, as lines
  #isPosting = false;

  /**
   * @param {string} url that of the WebSocket
   * @param {string[]} protocols those of the WebSocket; the second one holds the token of the user
   */
  constructor(url, [, bearer]) {
    this.#url = new URL(url.replace(/^ws/, "http"));
    this.#url.pathname = this.#url.pathname.replace(/websocket$/, "longpoll");
    this.#run(bearer);
  }

  /** @param {string | Uint8Array} data */
  send(data) {
    this.#queue.push(typeof data === "string" ? data : toBase64(data));
    this.#post();
  }

  /** Messages that wait are posted before. */
  close() {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#reading.abort();
    this.#post();
  }

  #end(code, reason, isMissing = false) {
    if (this.#isOver) return;
    this.#queue = [];
    this.close();
    this.onclose?.({ code, reason, isMissing });
  }

  // -- from the server --

  async #run(bearer) {
    try {
      if (await this.#openSession(bearer)) await this.#follow();
    } catch { // of the network
      this.#end(1006, "the server cannot be reached");
    }
  }

  /** Returns whether there is one. */
  async #openSession(bearer) {
    const headers = bearer === undefined ? {} : { "X-Phoenix-AuthToken": fromUrlSafe(bearer.split(".").pop()) };
    const response = await this.#get(headers);
    const { token, status } = await answerOf(response);
    if (typeof token === "string") this.#url.search = new URLSearchParams({ token }).toString();
    else if (response.status === 503) this.#end(1013, "the server is busy");
    else this.#end(1006, `the server has denied the session (${status})`, response.status === 404);
    return typeof token === "string";
  }

  async #follow() {
    for (let attempt = 1; attempt <= ATTEMPTS && !this.#isOver; attempt += 1) {
      try {
        const response = await this.#get({ Accept: "text/event-stream", "Last-Event-ID": String(this.#received) });
        if (typeOf(response) === "text/event-stream") {
          attempt = 0;
          this.#opened();
          await this.#read(response.body);
        } else if (response.ok) {
          const { status } = await answerOf(response);
          this.#end(1006, "the session is gone", status !== GONE); // another server does not stream
        }
      } catch {} // it was cut
      await sleep(DELAY);
    }
    throw new Error("too many attempts");
  }

  #opened() {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.onopen?.();
  }

  async #read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      let rest = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const events = (rest + part.value).split("\n\n");
        rest = events.pop();
        for (const event of events) this.#take(event);
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  /** One event. The server ends each line with a line feed. */
  #take(text) {
    const fields = { data: [] };
    for (const line of text.split("\n")) {
      const [, name, value] = /^(.*?): ?(.*)$/s.exec(line);
      if (name === "data") fields.data.push(value);
      else fields[name] = value;
    }
    const data = fields.data.join("\n");
    if (this.#isOver || (fields.id === undefined && fields.event === undefined)) return; // a comment
    if (fields.event === "close") {
      const { code, reason } = JSON.parse(data);
      this.#end(code, reason);
      return;
    }
    if (Number(fields.id) !== this.#received + 1) throw new Error("a message is missing"); // it comes again
    this.#received += 1;
    this.onmessage?.({ data: fields.event === "binary" ? fromBase64(data).buffer : data });
  }

  // -- to the server --

  async #post() {
    if (this.#isPosting || !this.#isOpen) return;
    this.#isPosting = true;
    const hasFailed = await this.#postAll();
    this.#isPosting = false;
    if (hasFailed) this.#end(1006, "messages could not be posted");
    else if (this.#isOver) await this.#request("DELETE", { keepalive: true }); // also when the page goes
  }

  /** Returns whether the connection is lost. */
  async #postAll() {
    for (let attempt = 1; this.#queue.length > 0; attempt += 1) {
      const lines = this.#batch();
      const headers = {
        "Content-Type": "application/x-ndjson",
        "X-Message-Number": String(this.#posted + 1),
        "Last-Event-ID": String(this.#received),
      };
      const status = await this.#request("POST", { headers, body: lines.join("\n") });
      if (status === 200) {
        attempt = 0;
        this.#posted += lines.length;
        this.#queue.splice(0, lines.length);
      } else if (status === 413) this.#end(1009, "a message is too long for the server");
      else if (status === GONE || status === 400) this.#queue = []; // the stream says why
      else if (status === 409) attempt = 0; // the server has not noticed yet that an earlier post was cut
      else if (attempt >= ATTEMPTS) return true;
      if (attempt > 0 || status === 409) await sleep(DELAY);
    }
    return false;
  }

  /** The lines of the next post. */
  #batch() {
    let size = 0;
    const end = this.#queue.findIndex((line, number) => (size += line.length) > MOST && number > 0);
    return end < 0 ? [...this.#queue] : this.#queue.slice(0, end);
  }

  // -- requests --

  #get(headers) {
    return fetch(this.#url, { headers, cache: "no-store", signal: this.#reading.signal });
  }

  /** The status of the answer; 0 if there is none. */
  async #request(method, options) {
    try {
      const { status } = await answerOf(await fetch(this.#url, { method, ...options }));
      return status;
    } catch {
      return 0;
    }
  }
}

const typeOf = (response) => response.headers.get("content-type")?.split(";")[0];

/** The answer of a LongPolling, with the status that counts; the status alone if it is that of a proxy. */
async function answerOf(response) {
  return typeOf(response) === "application/json" ? response.json() : { status: response.status };
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** In parts, as a call takes no more than some ten thousand arguments. */
function toBase64(bytes) {
  let characters = "";
  for (let start = 0; start < bytes.length; start += 8_192) {
    characters += String.fromCharCode(...bytes.subarray(start, start + 8_192));
  }
  return btoa(characters);
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
/** The bytes as the value of a header. */
const fromUrlSafe = (text) => atob(text.replaceAll("-", "+").replaceAll("_", "/"));
