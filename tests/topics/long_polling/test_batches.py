"""The messages of posts and polls."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_channels.topics import frames
from trio_channels.topics.long_polling.batches import NDJSON, BatchError, data_of, messages_of, text_of


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (b"", []),
        (b"\n\r\n\n", []),
        (b"[1]", ["[1]"]),
        ('["é"]\n[2]\n'.encode(), ['["é"]', "[2]"]),
        (b"AAE=\n[1]", [b"\x00\x01", "[1]"]),
    ],
)
def test_messages_of_a_post(body: bytes, messages: list[Any]) -> None:
    assert list(messages_of(body, NDJSON)) == messages
    assert list(messages_of(body, b"Application/X-NDJSON; charset=utf-8")) == messages


@pytest.mark.parametrize("line", [b"{}", b"AAE", b"A A=", b"AAE=AAE=", b"[\xff]", b"\xff", b" [1]", b"-_8="])
def test_line_that_is_no_message(line: bytes) -> None:
    found = messages_of(b"[1]\n" + line, NDJSON)
    assert next(found) == "[1]"
    with pytest.raises(BatchError, match="expected "):
        next(found)


@pytest.mark.parametrize("empty", [b"\n", b"\r\n"])
def test_empty_lines_cost_no_steps(empty: bytes) -> None:
    steps = 0

    def count(*_: Any) -> Any:
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        found = list(messages_of(empty * 10_000 + b"[1]" + empty * 10_000, NDJSON))
    finally:
        sys.settrace(before)
    assert found == ["[1]"]
    assert steps < 100


def test_messages_are_read_one_by_one() -> None:
    assert list(itertools.islice(messages_of(b"[\n" * 10_000_000, NDJSON), 3)) == ["["] * 3


@given(st.binary(max_size=60))
def test_any_post_is_read_or_refused(body: bytes) -> None:
    try:
        for message in messages_of(body, NDJSON):
            assert isinstance(message, str | bytes)
    except BatchError:
        pass


SENT = [
    (frames.push("1", "room:é", "news", b"\x00\x01"), ["1", None, "room:é", "news", "AAE="]),
    (frames.push(None, "a", "b", b""), [None, None, "a", "b", ""]),
    (frames.reply("1", 2, "a", "ok", b"\xff"), ["1", "2", "a", "phx_reply", {"status": "ok", "response": "/w=="}]),
    (frames.reply(None, "2", "a", "end", b"x"), [None, "2", "a", "phx_reply", {"status": "end", "response": "eA=="}]),
    (frames.broadcast("a", "b", b"x"), [None, None, "a", "b", "eA=="]),
    (frames.push("1", "a", "b", {"c": 1}), ["1", None, "a", "b", {"c": 1}]),
]


@pytest.mark.parametrize(("sent", "got"), SENT)
def test_message_of_a_poll(sent: dict[str, Any], got: list[Any]) -> None:
    assert msgspec.json.decode(text_of(data_of(sent))) == got


@pytest.mark.parametrize("content", [b"", b"\x03abc", b"\x00\x01", b"\x02\x01\x05ab", b"\xff" * 9])
def test_bytes_that_are_no_frame_of_the_server(content: bytes) -> None:
    with pytest.raises(frames.FrameError, match="expected a binary frame of the server"):
        data_of({"type": "websocket.send", "bytes": content})
