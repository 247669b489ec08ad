// topics-sse.js against a server that the test plays: node stream.mjs <scenario>.

import assert from "node:assert/strict";
import { createServer } from "node:http";

import EventStreamConnection from "../../../trio_channels/static/trio_channels/topics-sse.js";

const [scenario] = process.argv.slice(2);

/** Values, and those who wait for one. */
class Queue {
  items = [];
  takers = [];

  put(item) {
    if (this.takers.length > 0) this.takers.shift()(item);
    else this.items.push(item);
  }

  take() {
    return this.items.length > 0 ? Promise.resolve(this.items.shift()) : new Promise((resolve) => this.takers.push(resolve));
  }
}

/** One request to the server. */
class Request {
  constructor(request, response, body) {
    const { method, url, headers } = request;
    Object.assign(this, { method, url: new URL(url, "http://server"), headers, body, response });
  }

  answer(fields, status = 200) {
    this.response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(fields));
  }

  text(status) {
    this.response.writeHead(status, { "content-type": "text/html" }).end("<h1>A proxy</h1>");
  }

  cut() {
    this.response.destroy();
  }

  stream(text = ":\n\n") {
    if (!this.response.headersSent) this.response.writeHead(200, { "content-type": "text/event-stream" });
    this.response.write(text);
  }
}

const requests = { GET: new Queue(), POST: new Queue(), DELETE: new Queue() };
const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  requests[request.method].put(new Request(request, response, Buffer.concat(parts).toString()));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const { port } = server.address();

const next = (method) => requests[method].take();
const received = new Queue();
const ends = new Queue();

function connect(protocols = ["phoenix"], path = "/socket/websocket?vsn=2.0.0&user=ada") {
  const connection = new EventStreamConnection(`ws://127.0.0.1:${port}${path}`, protocols);
  connection.onmessage = ({ data }) => received.put(data);
  connection.onclose = (end) => ends.put(end);
  connection.opened = new Promise((resolve) => (connection.onopen = resolve));
  return connection;
}

/** A connection whose stream is open, and the request of the stream. */
async function open() {
  const connection = connect();
  (await next("GET")).answer({ status: 410, token: "t/1" });
  const stream = await next("GET");
  stream.stream();
  await connection.opened;
  return { connection, stream };
}

const event = (number, data) => `id: ${number}\ndata: ${data}\n\n`;

const scenarios = {
  async opening() {
    const connection = connect(["phoenix", "base64url.bearer.phx.w6k_fg"]);
    const opening = await next("GET");
    assert.equal(opening.url.href, "http://server/socket/longpoll?vsn=2.0.0&user=ada");
    assert.equal(opening.headers["x-phoenix-authtoken"], Buffer.from("é?~").toString("latin1"));
    opening.answer({ status: 410, token: "t/1" });
    const stream = await next("GET");
    assert.equal(stream.url.href, "http://server/socket/longpoll?token=t%2F1");
    assert.deepEqual([stream.headers.accept, stream.headers["last-event-id"]], ["text/event-stream", "0"]);
    assert.equal(stream.headers["x-phoenix-authtoken"], undefined);
    stream.stream();
    await connection.opened;
    connection.send("[1]");
    const post = await next("POST");
    assert.equal(post.url.href, stream.url.href);
    assert.deepEqual([post.body, post.headers["x-message-number"]], ["[1]", "1"]);
    assert.equal(post.headers["content-type"], "application/x-ndjson");
  },

  async refusals() {
    for (const [status, code, isMissing] of [[404, 1006, true], [403, 1006, false], [503, 1013, false], [500, 1006, false]]) {
      for (const how of ["text", "answer"]) {
        connect();
        const request = await next("GET");
        if (how === "text") request.text(status);
        else request.answer({ status }, status);
        const end = await ends.take();
        assert.deepEqual([end.code, end.isMissing], [code, isMissing], `${how} ${status}`);
      }
    }
    connect();
    (await next("GET")).cut();
    assert.equal((await ends.take()).code, 1006);
    connect(["phoenix", "base64url.bearer.phx.YQpi"]); // a line feed is in no header
    assert.equal((await ends.take()).code, 1006);
  },

  async messages() {
    const { stream } = await open();
    const text = `${event(1, '["é😀"]')}:\n\n${event(2, "[\ndata:  1\ndata: ]")}id: 3\nevent: binary\ndata: AP8=\n\n:\n\n`;
    for (const byte of Buffer.from(text)) {
      stream.response.write(Uint8Array.of(byte));
      await new Promise(setImmediate); // so that they come in many parts
    }
    assert.equal(await received.take(), '["é😀"]');
    assert.equal(await received.take(), "[\n 1\n]");
    const binary = await received.take();
    assert.ok(binary instanceof ArrayBuffer);
    assert.deepEqual([...new Uint8Array(binary)], [0, 255]);
  },

  async largeMessages() {
    const { connection, stream } = await open();
    const content = "x".repeat(1_000_000);
    stream.stream(event(1, content) + event(2, "[]"));
    assert.equal(await received.take(), content);
    connection.send(new Uint8Array(300_000).fill(7));
    const post = await next("POST");
    assert.equal(post.headers["last-event-id"], "2");
    assert.deepEqual(new Uint8Array(Buffer.from(post.body, "base64")), new Uint8Array(300_000).fill(7));
  },

  async streamThatIsCutGoesOn() {
    const { connection, stream } = await open();
    connection.onopen = () => assert.fail("it is open already");
    stream.stream(event(1, "[1]") + event(2, "[2]") + "id: 3\ndata: [");
    assert.equal(await received.take(), "[1]");
    assert.equal(await received.take(), "[2]");
    stream.cut();
    let again = await next("GET");
    assert.equal(again.headers["last-event-id"], "2");
    again.stream(event(3, "[3]"));
    assert.equal(await received.take(), "[3]");
    again.response.end(); // as a proxy does after a while
    again = await next("GET");
    assert.equal(again.headers["last-event-id"], "3");
    for (const fails of [(request) => request.cut(), (request) => request.text(502)]) {
      fails(again);
      again = await next("GET");
    }
    again.stream(event(4, "[4]"));
    assert.equal(await received.take(), "[4]");
    assert.deepEqual(ends.items, []);
  },

  async messageThatIsMissingComesAgain() {
    const { stream } = await open();
    stream.stream(event(1, "[1]") + event(3, "[3]"));
    const again = await next("GET");
    assert.equal(again.headers["last-event-id"], "1");
    again.stream(event(1, "[1]"));
    assert.equal((await next("GET")).headers["last-event-id"], "1");
    assert.deepEqual(received.items, ["[1]"]);
  },

  async streamThatCannotGoOn() {
    const { stream } = await open();
    stream.cut();
    for (let attempt = 0; attempt < 3; attempt += 1) (await next("GET")).text(502);
    assert.equal((await ends.take()).code, 1006);
    await next("DELETE");
  },

  async sessionThatIsGone() {
    const { stream } = await open();
    stream.cut();
    (await next("GET")).answer({ status: 410, token: null, messages: [] });
    assert.deepEqual(await ends.take(), { code: 1006, reason: "the session is gone", isMissing: false });
  },

  async serverThatDoesNotStream() {
    connect();
    (await next("GET")).answer({ status: 410, token: "t" });
    (await next("GET")).answer({ status: 204, token: "t", messages: [] });
    assert.equal((await ends.take()).isMissing, true);
  },

  async endByTheServer() {
    const { connection, stream } = await open();
    connection.send("[1]");
    const post = await next("POST");
    stream.stream(`${event(1, "[1]")}event: close\ndata: {"code":4003,"reason":"bye\\n"}\n\n${event(2, "[2]")}`);
    assert.deepEqual(await ends.take(), { code: 4003, reason: "bye\n", isMissing: false });
    connection.send("[2]");
    post.answer({ status: 410 });
    await next("DELETE");
    assert.deepEqual([received.items, requests.POST.items, requests.DELETE.items], [["[1]"], [], []]);
  },

  async endThatAPostLearnsFirst() {
    for (const status of [410, 400]) {
      const { connection, stream } = await open();
      connection.send("[1]");
      (await next("POST")).answer({ status });
      assert.deepEqual([ends.items, requests.POST.items], [[], []]);
      stream.stream('event: close\ndata: {"code":1012,"reason":""}\n\n');
      assert.equal((await ends.take()).code, 1012);
    }
  },

  async postsComeOneAtATime() {
    const { connection } = await open();
    connection.send("[1]");
    const first = await next("POST");
    connection.send("[2]");
    connection.send(Uint8Array.of(0, 255));
    assert.deepEqual(requests.POST.items, []);
    first.answer({ status: 200 });
    const second = await next("POST");
    assert.deepEqual([second.body, second.headers["x-message-number"]], ["[2]\nAP8=", "2"]);
    second.answer({ status: 200 });
    connection.send("[4]");
    assert.equal((await next("POST")).headers["x-message-number"], "4");
  },

  async postsAreOfALimitedSize() {
    const { connection } = await open();
    connection.send("[0]");
    const first = await next("POST");
    const messages = Array.from({ length: 200 }, (_, n) => `[${n},"${"x".repeat(999)}"]`);
    const large = `["${"x".repeat(200_000)}"]`;
    for (const message of [...messages, large, "[1]"]) connection.send(message);
    first.answer({ status: 200 });
    const got = [];
    while (got.length < 202) {
      const post = await next("POST");
      assert.ok(post.body.length < 70_000 || post.body === large);
      assert.equal(post.headers["x-message-number"], String(got.length + 2));
      got.push(...post.body.split("\n"));
      post.answer({ status: 200 });
    }
    assert.deepEqual(got, [...messages, large, "[1]"]);
  },

  async postThatFailsIsRepeated() {
    const { connection } = await open();
    connection.send("[1]");
    const fails = [(post) => post.cut(), (post) => post.text(502), ...Array(4).fill((post) => post.answer({ status: 409 }))];
    for (const failure of [...fails, fails[0], fails[1]]) {
      const post = await next("POST");
      assert.deepEqual([post.body.split("\n")[0], post.headers["x-message-number"]], ["[1]", "1"]);
      failure(post);
    }
    connection.send("[2]");
    const post = await next("POST");
    assert.equal(post.body, "[1]\n[2]");
    connection.send("[3]");
    post.answer({ status: 200 });
    for (let attempt = 0; attempt < 2; attempt += 1) (await next("POST")).cut();
    assert.deepEqual([(await next("POST")).body, requests.POST.items], ["[3]", []]);
    assert.deepEqual(ends.items, []);
  },

  async postsThatFailForGood() {
    const { connection } = await open();
    connection.send("[1]");
    for (let attempt = 0; attempt < 3; attempt += 1) (await next("POST")).cut();
    assert.equal((await ends.take()).code, 1006);
    await next("DELETE");
    assert.deepEqual(requests.DELETE.items, []);
  },

  async messageThatIsTooLong() {
    const { connection } = await open();
    connection.send("[1]");
    (await next("POST")).answer({ status: 413 }, 413);
    assert.equal((await ends.take()).code, 1009);
    await next("DELETE");
  },

  async closingPostsTheRest() {
    const { connection, stream } = await open();
    const cut = new Promise((resolve) => stream.response.on("close", resolve));
    connection.send("[1]");
    const first = await next("POST");
    connection.send("[2]");
    connection.close();
    connection.close();
    await cut;
    first.answer({ status: 200 });
    const second = await next("POST");
    assert.equal(second.body, "[2]");
    assert.deepEqual(requests.DELETE.items, []);
    second.answer({ status: 200 });
    const end = await next("DELETE");
    assert.equal(end.url.search, "?token=t%2F1");
    end.answer({ status: 200 });
    assert.deepEqual(ends.items, []);
  },

  async closingBeforeItIsOpen() {
    for (const requestsBefore of [1, 2]) {
      const connection = connect();
      if (requestsBefore === 2) (await next("GET")).answer({ status: 410, token: "t" });
      const request = await next("GET");
      const cut = new Promise((resolve) => request.response.on("close", resolve));
      connection.close();
      await cut;
    }
    assert.deepEqual([ends.items, requests.GET.items], [[], []]);
  },
};

await scenarios[scenario]();
console.log("passed");
process.exit(0);
