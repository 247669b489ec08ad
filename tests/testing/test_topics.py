"""The communicator for topics."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import TopicCommunicator, TopicFrame, TopicReply
from trio_channels.topics import Topic, TopicSocket, event

A, B = "room:a", "room:b"


class Room(Topic):
    pattern = "room:<slug:name>"

    @event("echo")
    async def echo(self, payload: Any) -> Any:
        await self.push("before", payload)
        return payload

    @event("tell")
    async def tell(self, payload: bytes) -> None:
        await self.broadcast("told", payload)


class Socket(TopicSocket):
    topics = [Room]
    channel_layer = InMemoryChannelLayer()


async def test_calls_wait_for_their_own_frames() -> None:
    async with TopicCommunicator(Socket.as_asgi()) as client:
        assert await client.connect() == (True, None)
        assert await client.join(A) == TopicReply("ok", {})
        await client.join(B)
        first = await client.send_push(A, "echo", 1)
        second = await client.send_push(B, "echo", 2)
        assert (await client.receive_reply(second)).response == 2
        assert (await client.receive_reply(first)).response == 1
        assert (await client.receive_event(B)).payload == 2
        assert await client.receive_frame() == TopicFrame("1", None, A, "before", 1)
        assert await client.leave(A) == ("ok", {})
        assert (await client.receive_event(A, "phx_close")).join_ref == "1"
        await client.disconnect()


async def test_binary_frames() -> None:
    async with TopicCommunicator(Socket.as_asgi()) as client:
        await client.connect()
        await client.join(A)
        assert await client.push(A, "echo", b"ab") == ("ok", b"ab")
        assert await client.receive_event(A) == TopicFrame("1", None, A, "before", b"ab")
        await client.push(A, "tell", b"all")
        assert await client.receive_event(A) == TopicFrame(None, None, A, "told", b"all")
        await client.disconnect()


async def test_frame_that_does_not_come_is_waited_for_in_vain(autojump_clock: trio.testing.MockClock) -> None:
    async with TopicCommunicator(Socket.as_asgi()) as client:
        await client.connect()
        await client.join(A)
        await client.push(A, "echo", 1)
        with pytest.raises(trio.TooSlowError):
            await client.receive_event(A, "other", timeout=5)
        assert (await client.receive_event(A)).payload == 1  # it was kept
        await client.disconnect()
