"""A hostile server: whatever it sends, the client's calls end, with errors of the project's tree, and leave nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from trio_channels.client import connect
from trio_channels.exceptions import CannotConnect, TopicClientError

from .scripted import A

#: Seconds; a call that takes longer hangs.
LONG = 20.0

refs = st.none() | st.sampled_from(["1", "2", "3", ""]) | st.integers() | st.text(max_size=2)
events = st.sampled_from(
    ["phx_reply", "phx_error", "phx_close", "phx_position", "presence_state", "presence_diff", "told", "phx_join"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
replies = st.fixed_dictionaries({"status": st.sampled_from(["ok", "error", "end", "x"]), "response": values})
metas = st.dictionaries(
    st.sampled_from("ab"), st.fixed_dictionaries({"metas": st.lists(values, max_size=2)}), max_size=2
)
payloads = values | replies | replies | metas | st.fixed_dictionaries({"joins": metas, "leaves": metas})
positions = st.lists(st.none() | st.text(max_size=3) | st.integers(), max_size=1)
frames = st.builds(
    lambda join_ref, ref, topic, event, payload, rest: json.dumps([join_ref, ref, topic, event, payload, *rest]),
    *(refs, refs, st.sampled_from([A, A, A, "phoenix", "other"]), events, payloads, positions),
)
binaries = st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(0, 3), st.binary(max_size=12))
messages = st.one_of(frames, frames, frames, binaries, st.text(max_size=10))


def websocket_frame(message: str | bytes) -> bytes:
    content = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
    return bytes([0x81 if isinstance(message, str) else 0x82, len(content)]) + content if len(content) < 126 else b""


JOINED = '["1","1","room:a","phx_reply",{"status":"ok","response":{}}]'


async def talk(chunks: list[bytes]) -> None:
    """A client of a server that sends these bytes after the handshake, and then ends."""

    async def handle(stream: trio.SocketStream) -> None:
        server = WSConnection(ConnectionType.SERVER)
        accepted = False
        try:
            while not accepted:
                server.receive_data(await stream.receive_some())
                for event in server.events():
                    if isinstance(event, Request):
                        await stream.send_all(server.send(AcceptConnection()))
                        accepted = True
            for chunk in chunks:
                await stream.send_all(chunk)
                await stream.receive_some()
        except trio.BrokenResourceError:
            pass
        await stream.aclose()

    ends = 0

    def back_off(attempt: int, code: int | None) -> float:
        nonlocal ends
        ends += 1
        return 0.0 if ends < 3 else 1_000.0

    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            address = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
            try:
                await use(address, back_off)
            except (CannotConnect, TopicClientError):
                pass
            nursery.cancel_scope.cancel()


async def use(address: str, back_off: Any) -> None:
    async with connect(address, timeout=0.05, heartbeat=0.02, back_off=back_off) as socket:
        try:
            async with socket.join(A, since="e-0") as room:
                await room.push("echo", {"n": 1})
                async with room.stream("count") as replies:
                    async for _ in replies:
                        break
                with trio.move_on_after(0.02):
                    async for _ in room:
                        pass
        finally:
            statistics = socket.statistics()
            assert (statistics.topics, statistics.waiting_pushes) == (0, 0)


@settings(max_examples=25)
@given(st.lists(messages, max_size=6))
@example([JOINED, '["1","2","room:a","phx_reply",{"status":"x","response":1}]'])
@example([JOINED, "[" * 100])
@example([JOINED, '["1","1","room:a","phx_close",{}]', '["1","1","room:a","phx_error",{}]'])
def test_any_messages_of_a_server_end_in_an_error_or_a_result(sent: list[str | bytes]) -> None:
    trio.run(talk, [websocket_frame(message) for message in sent])


@settings(max_examples=15)
@given(st.lists(st.binary(max_size=20), max_size=4))
@example([b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"])
@example([b"\x88\x02\x0f\xa1"])
@example([b"\x88\x01\x00"])
@example([b"\x81\x01\xff"])
@example([b"\x8f\x00"])
def test_any_bytes_of_a_server_end_in_an_error_or_a_result(sent: list[bytes]) -> None:
    trio.run(talk, sent)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.lists(messages.map(websocket_frame) | st.binary(max_size=20), max_size=8))
def test_anything_of_a_server_ends_in_an_error_or_a_result(sent: list[bytes]) -> None:
    trio.run(talk, sent)
