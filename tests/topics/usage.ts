// Uses the types of described.py; tsc reports an error that is expected and does not come, too.
import type { Topics } from "./topics";

type Board = Topics["Board"];

declare function push<T extends keyof Board["pushes"]>(event: T, payload: Board["pushes"][T]["payload"]): void;
declare function on<T extends keyof Board["events"]>(event: T, then: (payload: Board["events"][T]) => void): void;

const topic: Board["topic"] = "board:red:7";
// @ts-expect-error: the number
const wrong: Board["topic"] = "board:red:x";
const plain: Topics["Plain"]["topic"] = "plain";

push("draw", { shape: { type: "circle", centre: [1, 2], radius: 3 } });
push("draw", { shape: { type: "square", corner: [1, 2, "a"], side: 3 }, then: null });
push("count", "up");
push("bytes/and~more", new ArrayBuffer(3));
push("set", { a: "red" });
push("bare", { anything: [1] });
// @ts-expect-error: no such shape
push("draw", { shape: { type: "triangle" } });
// @ts-expect-error: no such event
push("missing", {});
// @ts-expect-error: no such word
push("count", "sideways");

on("drawn", ({ shapes, colour, tags, "with-dash": dash, at }) => {
  const first = shapes[0];
  const radius: number = first.type === "circle" ? first.radius : first.side;
  const red: boolean = colour === "red";
  const sum: number = (tags?.["x"] ?? 0) + (dash ?? 0);
  const when: string | null | undefined = at;
  console.log(radius, red, sum, when);
});
on("pair", ([number, text]) => console.log(number.toFixed(), text.length));
on("raw", (buffer) => console.log(buffer.byteLength));
on("presence_state", (state) => console.log(state["ada"].metas[0]["phx_ref"]));
on("presence_diff", ({ joins, leaves }) => console.log(joins["ada"].metas, leaves));

const reply: Board["pushes"]["draw"]["reply"] = {};
const replies: Board["pushes"]["count"]["replies"] = 3;
const joined: Board["joined"] = { shapes: [], colour: "blue" };
console.log(topic, wrong, plain, reply, replies, joined);
