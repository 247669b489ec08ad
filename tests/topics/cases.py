"""The protocol as a table: a client's frames, and all frames that the client gets, in this order.

Each case begins with a new socket. A frame is a list, as in JSON, or bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from trio_channels.topics import frames


class Step(NamedTuple):
    sent: Any
    got: list[Any]
    in_order: bool = True


def reply(join_ref: Any, ref: Any, topic: str, status: str = "ok", response: Any = None) -> list[Any]:
    return [join_ref, ref, topic, "phx_reply", {"status": status, "response": {} if response is None else response}]


def error(join_ref: Any, ref: Any, topic: str, **response: Any) -> list[Any]:
    return reply(join_ref, ref, topic, "error", response)


def close(join_ref: Any, topic: str) -> list[Any]:
    return [join_ref, join_ref, topic, "phx_close", {}]


def crashed(join_ref: Any, topic: str) -> list[Any]:
    return [join_ref, join_ref, topic, "phx_error", {}]


def binary(kind: int, *fields: str, payload: bytes = b"") -> bytes:
    encoded = [field.encode() for field in fields]
    return bytes([kind, *map(len, encoded)]) + b"".join(encoded) + payload


A = "room:a"
JOIN = Step(["1", "1", A, "phx_join", {}], [reply("1", "1", A)])


def push(event: str, payload: Any, *got: Any, join_ref: Any = "1", ref: Any = "2") -> Step:
    return Step([join_ref, ref, A, event, payload], list(got))


def invalid(message: str, at: str = "$") -> list[Any]:
    return error("1", "2", A, reason="invalid payload", message=message, at=at)


#: Shows that the topic lives, or that nothing has come before.
ALIVE = push("echo", {"alive": 1}, reply("1", "9", A, "ok", {"alive": 1}), ref="9")

CASES: dict[str, list[Step]] = {
    "heartbeat": [Step([None, "1", "phoenix", "heartbeat", {}], [reply(None, "1", "phoenix")])],
    "other event of the socket": [
        Step([None, "1", "phoenix", "else", {}], [error(None, "1", "phoenix", reason="unmatched topic")])
    ],
    "join of the socket's topic": [
        Step(["1", "1", "phoenix", "phx_join", {}], [error(None, "1", "phoenix", reason="unmatched topic")])
    ],
    "join": [JOIN, ALIVE],
    "join with a reply": [Step(["1", "1", A, "phx_join", {"x": 1}], [reply("1", "1", A, "ok", {"room": "a"})])],
    "join with a list": [Step(["1", "1", A, "phx_join", [1]], [reply("1", "1", A, "ok", [1])])],
    "join with numbers as references": [
        Step([1, 1, A, "phx_join", {}], [reply(1, 1, A)]),
        push("echo", {}, reply(1, 2, A), join_ref=1, ref=2),
    ],
    "join without join_ref": [
        Step([None, "1", A, "phx_join", {}], [reply(None, "1", A)]),
        push("echo", {}, reply(None, "2", A), join_ref="any"),
    ],
    "join refused": [
        Step(["1", "1", A, "phx_join", {"refuse": "full"}], [error("1", "1", A, reason="full")]),
        push("echo", {}, error(None, "2", A, reason="unmatched topic")),
        JOIN,
    ],
    "join crashed": [
        Step(["1", "1", A, "phx_join", {"crash": 1}], [error("1", "1", A, reason="join crashed")]),
        JOIN,
        ALIVE,
    ],
    "join without the layer": [
        Step(["1", "1", A, "phx_join", {"away": 1}], [error("1", "1", A, reason="unavailable")]),
        JOIN,
    ],
    "messages of join() follow the reply": [
        Step(
            ["1", "1", A, "phx_join", {"early": 1}],
            [
                reply("1", "1", A, "ok", {"room": "a"}),
                ["1", None, A, "early", {"n": 1}],
                [None, None, A, "early", {"n": 2}],
            ],
        )
    ],
    "join of an unknown topic": [
        Step(["1", "1", "rom:a", "phx_join", {}], [error("1", "1", "rom:a", reason="unmatched topic")])
    ],
    "join whose name does not fit": [
        Step(["1", "1", "room:a b", "phx_join", {}], [error("1", "1", "room:a b", reason="unmatched topic")]),
        Step(["2", "2", "plain:x", "phx_join", {}], [error("2", "2", "plain:x", reason="unmatched topic")]),
    ],
    "typed arguments in a name": [
        Step(["1", "1", "plain:7", "phx_join", {}], [reply("1", "1", "plain:7", "ok", {"number": 7})])
    ],
    "typed params": [
        Step(["1", "1", "typed", "phx_join", {"text": "hi"}], [reply("1", "1", "typed", "ok", "hi")]),
    ],
    "params that do not fit": [
        Step(
            ["1", "1", "typed", "phx_join", {"text": 1}],
            [error(*("1", "1", "typed"), reason="invalid payload", message="Expected `str`, got `int`", at="$.text")],
        ),
    ],
    "push without a join": [push("echo", {}, error(None, "2", A, reason="unmatched topic"))],
    "leave without a join": [push("phx_leave", {}, reply(None, "2", A))],
    "leave": [
        JOIN,
        push("phx_leave", {}, reply("1", "2", A), close("1", A)),
        push("echo", {}, error(None, "2", A, reason="unmatched topic")),
        JOIN,
    ],
    "leave without a reference": [JOIN, push("phx_leave", {}, close("1", A), ref=None)],
    "leave with a stale join_ref": [JOIN, push("phx_leave", {}, join_ref="0"), ALIVE],
    "push with a stale join_ref": [JOIN, push("echo", {}, join_ref="0"), ALIVE],
    "push without a reference": [JOIN, push("echo", {}, ref=None), ALIVE],
    "second join": [
        JOIN,
        Step(["5", "5", A, "phx_join", {}], [close("1", A), reply("5", "5", A)]),
        push("echo", {}),
        push("echo", {}, reply("5", "6", A), join_ref="5", ref="6"),
    ],
    "second join that is refused": [
        JOIN,
        Step(["5", "5", A, "phx_join", {"refuse": "no"}], [close("1", A), error("5", "5", A, reason="no")]),
    ],
    "two topics": [
        JOIN,
        Step(["2", "2", "room:b", "phx_join", {}], [reply("2", "2", "room:b")]),
        push("crash", {}, crashed("1", A)),
        Step(["2", "3", "room:b", "echo", {}], [reply("2", "3", "room:b")]),
    ],
    "reply of a struct, and a broadcast": [
        JOIN,
        Step(  # they come on two ways, one of which may be faster
            ["1", "2", A, "message.new", {"text": "hé"}],
            [[None, None, A, "message.new", {"text": "hé"}], reply("1", "2", A, "ok", {"text": "hé", "length": 2})],
            in_order=False,
        ),
    ],
    "broadcast to the others": [JOIN, push("others", {}, reply("1", "2", A))],
    "push to this client": [JOIN, push("push", {"a": 1}, ["1", None, A, "pushed", {"a": 1}], reply("1", "2", A))],
    "handler on a thread": [JOIN, push("number", 1, reply("1", "2", A, "ok", 2))],
    "stream of replies": [
        JOIN,
        push(
            "count",
            2,
            reply("1", "2", A, "ok", {"n": 0}),
            reply("1", "2", A, "ok", {"n": 1}),
            reply("1", "2", A, "end"),
        ),
        push("count", 0, reply("1", "2", A, "end")),
    ],
    "error reply": [JOIN, push("refuse", {}, error("1", "2", A, reason="not now")), ALIVE],
    "error reply without a reason": [JOIN, push("refuse.plainly", {}, error("1", "2", A)), ALIVE],
    "unknown event": [JOIN, push("no.such", {}, error("1", "2", A, reason="unmatched event")), ALIVE],
    "event of the protocol": [JOIN, push("phx_close", {}, error("1", "2", A, reason="unmatched event")), ALIVE],
    "payload of another type": [JOIN, push("message.new", [], invalid("Expected `object`, got `array`")), ALIVE],
    "field that is missing": [JOIN, push("message.new", {}, invalid("Object missing required field `text`")), ALIVE],
    "field that is too short": [
        JOIN,
        push("message.new", {"text": ""}, invalid("Expected `str` of length >= 1", "$.text")),
    ],
    "item of another type": [
        JOIN,
        push("message.new", {"text": "a", "tags": ["b", 1]}, invalid("Expected `str`, got `int`", "$.tags[1]")),
    ],
    "JSON for bytes": [JOIN, push("bytes", "x", invalid("Expected a binary payload, got JSON")), ALIVE],
    "crash": [
        JOIN,
        push("crash", {}, crashed("1", A)),
        push("echo", {}, error(None, "2", A, reason="unmatched topic")),
        JOIN,
        ALIVE,
    ],
    "crash in the background": [JOIN, push("crash.later", {}, reply("1", "2", A), crashed("1", A))],
    "reply that is no JSON": [JOIN, push("not.json", {}, crashed("1", A))],
    "handler without the layer": [JOIN, push("away", {}, error("1", "2", A, reason="unavailable")), ALIVE],
    "end by the server": [JOIN, push("stop", {}, close("1", A)), JOIN],
    "binary push and reply": [
        JOIN,
        Step(
            binary(0, "1", "2", A, "bytes", payload=b"\x00\xff"),
            [binary(1, "1", "2", A, "ok", payload=b"\xff\x00")],
        ),
    ],
    "binary payload for any": [
        JOIN,
        Step(binary(0, "1", "2", A, "echo", payload=b"ab"), [binary(1, "1", "2", A, "ok", payload=b"ab")]),
        Step(
            binary(0, "1", "2", A, "push", payload=b"ab"),
            [binary(0, "1", A, "pushed", payload=b"ab"), reply("1", "2", A)],
        ),
    ],
    "binary payload for JSON": [
        JOIN,
        Step(
            binary(0, "1", "2", A, "message.new"),
            [invalid("Expected JSON, got a binary payload")],
        ),
    ],
    "binary push without references": [
        Step([None, "1", A, "phx_join", {}], [reply(None, "1", A)]),
        Step(binary(0, "", "", A, "echo"), []),
        push("echo", {"alive": 1}, reply(None, "9", A, "ok", {"alive": 1}), ref="9"),
    ],
    "long names": [
        Step(
            ["1", "1", "any:" + "é" * 250, "phx_join", {}],
            [reply("1", "1", "any:" + "é" * 250)],
        ),
    ],
}

#: Messages that are no frames.
NO_FRAMES: list[str | bytes] = [
    *("", "no JSON", "{}", "[]", "null", '["1","1","a","b"]', '["1","1","a","b",{},1]', '[1.5,"1","a","b",{}]'),
    *('["1","1",null,"b",{}]', '["1","1","a",1,{}]', '[true,"1","a","b",{}]', '["1","1","a","b",{}] x'),
    *(f'["1","1","{"a" * 256}","b",{{}}]', f'["{"1" * 256}","1","a","b",{{}}]', f'["1",{2**60},"a","b",{{}}]'),
    *('["1","1","\\ud800","b",{}]', '["1","1","a","b",' + "[" * 100_000 + "]" * 100_000 + "]", '["1","1","a","b",nan]'),
    *(b"", b"\x00", b"\x00\x01\x01\x01", binary(0, "1", "2", A, "x")[:-1], binary(1, "1", "2", A, "ok")),
    *(binary(2, A, "x"), b"\x00\x00\x00\x02\x00\xff\xff", b'["1","1","a","b",{}]'),
]

assert frames.MAX_FIELD == 255  # the cases above rely on this
