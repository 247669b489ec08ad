"""Server-sent events, taken apart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_channels.testing import ServerSentEvent
from trio_channels.testing.events import EventParser


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        ("data: one\n\n", [ServerSentEvent("one")]),
        ("data:one\r\n\r\n", [ServerSentEvent("one")]),
        ("data:  one\r\r", [ServerSentEvent(" one")]),
        ("data: a\ndata: b\n\n", [ServerSentEvent("a\nb")]),
        ("data\n\n", [ServerSentEvent("")]),
        ("event: gap\ndata: {}\n\ndata: x\n\n", [ServerSentEvent("{}", "gap"), ServerSentEvent("x")]),
        ("id: 7\ndata: a\n\ndata: b\n\n", [ServerSentEvent("a", id="7"), ServerSentEvent("b", id="7")]),
        ("id: 7\0\ndata: a\n\n", [ServerSentEvent("a")]),
        (": a comment\n\nretry: 5\n\nevent: empty\n\nunknown: x\n\n", []),
        ("event: x\n\ndata: y\n\n", [ServerSentEvent("y")]),
        ("data: unfinished\n", []),
        ("\ufeffdata: grüß\n\n", [ServerSentEvent("grüß")]),
        ("data: a:b\n\n", [ServerSentEvent("a:b")]),
    ],
)
def test_stream_is_taken_apart(stream: str, events: list[ServerSentEvent]) -> None:
    assert list(EventParser().feed(stream.encode())) == events


@given(
    st.lists(
        st.sampled_from(["data: ", "data", "é", "🎻", ":", "id: 1", "event: x", "\n", "\r", "\r\n", "\0", " "]),
        max_size=20,
    ),
    st.lists(st.integers(0, 80)),
)
def test_parts_make_no_difference(pieces: list[str], cuts: list[int]) -> None:
    stream = "".join(pieces).encode()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parser = EventParser()
    parts = [stream[first:last] for first, last in pairwise(places)]
    assert [event for part in parts for event in parser.feed(part)] == list(EventParser().feed(stream))


def test_line_end_may_be_cut() -> None:
    parser = EventParser()
    parts = [b"data: a", b"\r", b"", b"\n", b"\n", b"data: b\r", b"\r", b"\n", b"\n"]
    assert [[event.data for event in parser.feed(part)] for part in parts] == [[]] * 4 + [["a"], [], ["b"], [], []]


def test_bytes_that_are_not_text_are_replaced() -> None:
    assert list(EventParser().feed(b"data: \xff\n\n")) == [ServerSentEvent("\ufffd")]


def test_data_may_be_json() -> None:
    assert ServerSentEvent('{"a": 1}').json() == {"a": 1}
    with pytest.raises(ValueError, match="Expecting value"):
        ServerSentEvent("a").json()
