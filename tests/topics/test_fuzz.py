"""Any message gives an answer, a close or silence; never a traceback, and never a socket that hangs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import WebsocketCommunicator
from trio_channels.topics import TopicSocket

from .cases import NO_FRAMES, binary
from .rooms import ALL

HARMLESS = ["echo", "message.new", "others", "push", "number", "bytes", "count", "refuse", "away", "stop", "no.such"]
EVENTS = ["phx_join", "phx_leave", "phx_reply", "phx_close", "heartbeat", *HARMLESS]


class Socket(TopicSocket):
    topics = ALL
    channel_layer = InMemoryChannelLayer()


refs = st.none() | st.sampled_from(["1", "2", ""]) | st.integers(-(2**54), 2**54) | st.text(max_size=3)
topics = st.sampled_from(["room:a", "room:b", "phoenix", "typed", "plain:1", "plain:x", "any:a/b", ""]) | st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
payloads = values | st.fixed_dictionaries({}, optional={"text": values, "tags": values, "refuse": values})
frames = st.tuples(refs, refs, topics, st.sampled_from(EVENTS) | st.text(max_size=5), payloads).map(json.dumps)
binaries = st.builds(
    lambda fields, payload, cut: binary(0, *fields, payload=payload)[:cut],
    st.tuples(
        st.sampled_from(["", "1", "é"]), st.sampled_from(["", "2"]), st.just("room:a"), st.sampled_from(HARMLESS)
    ),
    st.binary(max_size=10),
    st.none() | st.integers(0, 20),
)
messages = st.one_of(frames, frames, frames, binaries, st.text(max_size=20), st.binary(max_size=20))


@settings(max_examples=30)
@given(st.lists(messages, max_size=12))
@example(NO_FRAMES)
@example(['["1","1","room:a","phx_join",{}]', *NO_FRAMES])
def test_any_message_is_answered_or_ignored(sent: list[str | bytes]) -> None:
    trio.run(exchange, sent)


@pytest.mark.slow
@settings(max_examples=1_000)
@given(st.lists(messages, max_size=25))
def test_any_message_of_many_is_answered_or_ignored(sent: list[str | bytes]) -> None:
    trio.run(exchange, sent)


async def exchange(sent: list[str | bytes]) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("trio_channels").addHandler(handler)
    try:
        async with WebsocketCommunicator(Socket.as_asgi(), "/") as client:
            await client.connect()
            for message in sent:
                await client.send_to(**{"bytes_data" if isinstance(message, bytes) else "text_data": message})  # type: ignore[arg-type]
            await client.send_to(text_data='[null,"last","phoenix","heartbeat",{}]')
            while not await is_last(client):
                pass
            await client.disconnect()
    finally:
        logging.getLogger("trio_channels").removeHandler(handler)
    assert [record.getMessage() for record in records if record.exc_info] == []
    assert Socket.channel_layer.statistics().memberships == 0


async def is_last(client: WebsocketCommunicator) -> bool:
    """Whether the next message is the answer to the heartbeat, or the close; any other must be a frame."""
    output: Any = await client.receive_output()
    if output["type"] == "websocket.close":
        assert output["code"] == 1007
        return True
    if output.get("text") is None:
        assert output["bytes"][0] in (0, 1, 2)
        return False
    _, ref, _, event, payload = json.loads(output["text"])
    assert isinstance(payload, dict | list | str | int | float | bool) or payload is None
    return bool((ref, event) == ("last", "phx_reply"))
