"""The communicator for a WebSocket that carries topics: a client of the Phoenix Channels protocol, version 2."""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .._asgi.protocol import ASGIApplication
from .websocket import WebsocketCommunicator


class TopicFrame(NamedTuple):
    """A frame from the server. Its payload is decoded; of a binary frame it is bytes, or a reply with bytes."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any
    position: str | None = None


class TopicReply(NamedTuple):
    """The reply to a join or a push."""

    status: str
    response: Any


class TopicCommunicator(WebsocketCommunicator):
    """Runs a :class:`~trio_channels.topics.TopicSocket`, and offers the calls of a client.

    Frames that a call does not wait for are kept for later calls, in their order.

    Args:
        application: the ASGI application.
        path: the path and query; the parameters of the client's socket are in the query.
        headers: (name, value) pairs of bytes.
        subprotocols: the subprotocols that the client offers.
    """

    def __init__(
        self,
        application: ASGIApplication,
        path: str = "/socket/websocket?vsn=2.0.0",
        headers: Sequence[tuple[bytes, bytes]] = (),
        subprotocols: Sequence[str] = (),
    ) -> None:
        super().__init__(application, path, headers, subprotocols)
        self._frames: deque[TopicFrame] = deque()
        self._join_refs: dict[str, str] = {}
        self._last_ref = 0

    async def join(self, topic: str, params: Any = None, timeout: float | None = None) -> TopicReply:
        """Join a topic, or join it again, and wait for the reply.

        Args:
            topic: the topic's name.
            params: the parameters of the join; an empty object by default.
            timeout: in seconds; :attr:`timeout` by default.

        Raises:
            trio.TooSlowError, AssertionError, EOFError, Exception: as :meth:`receive_from`.

        Cancellation: loses no frame.
        """
        self._join_refs[topic] = str(self._last_ref + 1)
        return await self.push(topic, "phx_join", params, timeout)

    async def leave(self, topic: str, timeout: float | None = None) -> TopicReply:
        """Leave a topic, and wait for the reply. Raises and cancellation: as :meth:`join`."""
        return await self.push(topic, "phx_leave", None, timeout)

    async def push(self, topic: str, event: str, payload: Any = None, timeout: float | None = None) -> TopicReply:
        """Push an event, and wait for the reply; the first, if it is a stream of replies.

        Args:
            topic: the topic's name.
            event: the event's name.
            payload: an object for JSON, or bytes; an empty object by default.
            timeout: in seconds; :attr:`timeout` by default.

        Raises and cancellation: as :meth:`join`.
        """
        return await self.receive_reply(await self.send_push(topic, event, payload), timeout)

    async def send_push(self, topic: str, event: str, payload: Any = None) -> str:
        """Push an event without waiting; returns the reference for :meth:`receive_reply`."""
        self._last_ref += 1
        ref, join_ref = str(self._last_ref), self._join_refs.get(topic)
        if isinstance(payload, bytes):
            fields = [(field or "").encode() for field in (join_ref, ref, topic, event)]
            await self.send_to(bytes_data=bytes([0, *map(len, fields)]) + b"".join(fields) + payload)
        else:
            await self.send_json_to([join_ref, ref, topic, event, {} if payload is None else payload])
        return ref

    async def receive_reply(self, ref: str, timeout: float | None = None) -> TopicReply:
        """Wait for the next reply to a push. Raises and cancellation: as :meth:`join`."""
        frame = await self._next_frame(lambda frame: frame.event == "phx_reply" and frame.ref == ref, timeout)
        return TopicReply(frame.payload["status"], frame.payload["response"])

    async def receive_event(self, topic: str, event: str | None = None, timeout: float | None = None) -> TopicFrame:
        """Wait for the next frame of a topic that is no reply.

        Args:
            topic: the topic's name.
            event: the event's name; any by default.
            timeout: in seconds; :attr:`timeout` by default.

        Raises and cancellation: as :meth:`join`.
        """

        def wanted(frame: TopicFrame) -> bool:
            is_event = frame.event != "phx_reply" if event is None else frame.event == event
            return frame.topic == topic and is_event

        return await self._next_frame(wanted, timeout)

    async def receive_frame(self, timeout: float | None = None) -> TopicFrame:
        """Wait for the next frame, whatever it is. Raises and cancellation: as :meth:`join`."""
        return await self._next_frame(lambda _frame: True, timeout)

    async def _next_frame(self, wanted: Callable[[TopicFrame], bool], timeout: float | None) -> TopicFrame:
        for frame in self._frames:
            if wanted(frame):
                self._frames.remove(frame)
                return frame
        while True:
            frame = _decode(await self.receive_from(timeout))
            if wanted(frame):
                return frame
            self._frames.append(frame)


def _decode(content: str | bytes) -> TopicFrame:
    if isinstance(content, str):
        return TopicFrame(*json.loads(content))
    # A push has no ref, a broadcast no references; the event of a reply is its status.
    number = {0: 3, 1: 4, 2: 2}[content[0]]
    sizes = content[1 : 1 + number]
    *fields, payload = struct.unpack(
        "".join(f"{size}s" for size in sizes) + f"{len(content) - 1 - number - sum(sizes)}s", content[1 + number :]
    )
    names = [field.decode() for field in fields]
    if content[0] == 1:
        return TopicFrame(names[0], names[1], names[2], "phx_reply", {"status": names[3], "response": payload})
    return TopicFrame(names[0] if number == 3 else None, None, names[-2], names[-1], payload)
