"""The context of a trace in an entry of a Redis stream."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trio_channels import tracing
from trio_channels._tracing import TracedMessage
from trio_channels.layers.redis.codec import GROUP, VERSION, EntryCodec, UndecodableEntry

from .conftest import Spans

MESSAGE = {"type": "room.said", "text": "hello"}


@pytest.mark.parametrize("options", [{}, {"serializer_format": "json"}, {"keys": ["secret"]}])
@pytest.mark.parametrize("exclude", [frozenset(), frozenset({"specific!a"})])
def test_entry_carries_the_senders_context(options: Any, exclude: frozenset[str], spans: Spans) -> None:
    codec = EntryCodec(**options)
    with spans.provider.get_tracer("test").start_as_current_span("sender"):
        blob = codec.pack(GROUP, "room", MESSAGE, exclude)
    payload = codec.unpack(blob)
    assert payload.message == MESSAGE
    assert payload.exclude == exclude
    assert isinstance(payload.message, TracedMessage)
    copy = payload.message.copy()
    assert isinstance(copy, TracedMessage)
    assert copy.trace == payload.message.trace
    assert f"{spans.one('sender').context.span_id:016x}" in copy.trace["traceparent"]


def test_entry_without_a_context_is_as_before(spans: Spans) -> None:
    codec = EntryCodec()
    without_span = codec.pack(GROUP, "room", MESSAGE)
    tracing.disable()
    assert codec.pack(GROUP, "room", MESSAGE) == without_span
    assert msgspec.msgpack.decode(without_span[1:]) == [GROUP, "room", MESSAGE]
    assert type(codec.unpack(without_span).message) is dict


@pytest.mark.parametrize("trace", ["text", 3, {"traceparent": 3}, [1]])
def test_malformed_context_makes_the_entry_undecodable(trace: Any) -> None:
    blob = VERSION + msgspec.msgpack.encode([GROUP, "room", MESSAGE, [], b"", trace])
    with pytest.raises(UndecodableEntry):
        EntryCodec().unpack(blob)


def test_context_of_strange_fields_is_no_context() -> None:
    blob = VERSION + msgspec.msgpack.encode([GROUP, "room", MESSAGE, [], b"", {"traceparent": "nonsense", "x": "y"}])
    assert tracing.context_of(EntryCodec().unpack(blob).message) == {}
