// The types of topics.js as a page uses them, and that the module has what they promise. `tsc --strict` reads it.

import * as module from "./module/topics.js"; // a copy without its types
import * as types from "./topics.js";
import { Presence, Socket, TopicError, backOff } from "./topics.js";
import type { End, Meta, SocketOptions, Topic, TopicErrorCode } from "./topics.js";

export const same: typeof types = module;

interface Message {
  text: string;
}

const options: SocketOptions = {
  params: () => ({ user: "ada" }),
  authToken: "secret",
  timeout: 5_000,
  heartbeat: 20_000,
  window: 10,
  maxQueue: 50,
  backOff: (attempt, code) => (code === 1013 ? 60_000 : backOff(attempt, code)),
  isFinal: (code) => code === 4003,
  WebSocket,
};
const socket = new Socket(new URL("wss://example.com/socket"), options);
socket.connect();
const end: End = socket.onState((state, ended) => state === "waiting" && ended !== null && ended.code === 1012);
end();

const room: Topic = socket.topic("room:lobby", { name: "ada" });
room.position = sessionStorage.getItem("position");
room.on<Message>("message.new", ({ text }) => text.toUpperCase());
room.onJoin<{ title: string; recovered?: boolean }>((reply, again) => again && !reply.recovered && reply.title.length);
room.onError((error) => error.code === "crashed");
room.onClose((error) => error.message);

export async function use(): Promise<string[]> {
  const { title } = await room.join<{ title: string }>({ timeout: 1_000 });
  try {
    await room.push("message.new", { text: title } satisfies Message, { once: true, timeout: 1_000, queue: true });
    await room.push("bytes", new Uint8Array(3));
  } catch (error) {
    const code: TopicErrorCode | null = error instanceof TopicError ? error.code : null;
    if (code === "refused") throw error;
  }
  const texts: string[] = [];
  for await (const { text } of room.stream<Message>("search", "a", { timeout: 1_000 })) texts.push(text);
  const isSent: boolean = room.tell("typing");
  const people = new Presence(room);
  people.onJoin((key, joined: Meta[], others) => joined.length + others.length + key.length);
  people.onLeave((key, left) => [key, left[0]?.phx_ref]);
  people.onChange((list) => list.map(({ key, metas }) => [key, metas.length]));
  texts.push(...people.list().map(({ key }) => key), people.get("ada")[0]?.at, String(isSent));
  await room.leave();
  socket.disconnect();
  return texts;
}

export function mistakes(): void {
  // @ts-expect-error an unknown option
  new Socket("/socket", { timeOut: 1 });
  // @ts-expect-error the state is read-only
  socket.state = "connected";
  // @ts-expect-error a stream cannot be sent again
  room.stream("count", {}, { once: true });
  // @ts-expect-error no such code
  new TopicError("unknown", "");
  // @ts-expect-error a listener is a function
  room.on("message.new", null);
}
