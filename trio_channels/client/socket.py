"""The client's socket: one WebSocket at a time, which comes back, and carries the topics.

nursery of connect()
  ClientSocket.run          connects, waits, connects again
    nursery                 of one connection: reader, writer, heartbeats, and the reader of trio-websocket
  Membership.run            one for each topic: joins, and joins again
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import trio

from .._asgi.close_codes import ABNORMAL
from .._concurrency.exception_groups import leaves
from .._concurrency.wakeup import Wakeup
from ..exceptions import CannotConnect, SocketEnded, TopicClientError
from . import frames
from .coming_back import STABLE, is_final_status
from .frames import FrameError, ServerFrame
from .membership import Membership
from .options import Options
from .topic import ClientTopic
from .transport import PROTOCOL_ERROR, Connection, Lost, talk

logger = logging.getLogger("trio_channels.client")


class SocketStatistics(NamedTuple):
    """Figures of a socket.

    Attributes:
        connected: whether there is a connection now.
        connections: the connections so far.
        heartbeats: the heartbeats that the server has answered.
        topics: the topics that are joined, or are being joined.
        waiting_pushes: the pushes that wait for their topic.
    """

    connected: bool
    connections: int
    heartbeats: int
    topics: int
    waiting_pushes: int


class Link:
    """The way to the server, as long as one connection lasts."""

    __slots__ = ("_frames", "_wakeup", "beat", "scope")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.beat: str | None = None  # the reference of the heartbeat that is not answered
        self._frames: deque[str | bytes] = deque()
        self._wakeup = Wakeup()

    def send(self, frame: str | bytes) -> None:
        """Have a frame sent, in its turn."""
        self._frames.append(frame)
        self._wakeup.set()

    async def write(self, connection: Connection) -> None:
        """Send the frames. Raises Lost. Cancellation: at any time."""
        while True:
            while self._frames:
                await connection.send(self._frames.popleft())
            await self._wakeup.wait()


class ClientSocket:
    """A socket to a server of topics; :func:`connect` makes it."""

    def __init__(self, options: Options, nursery: trio.Nursery) -> None:
        self.options = options
        self.waiting = 0  # pushes that wait for their topics
        self._nursery = nursery
        self._topics: dict[str, Membership] = {}
        self._link: Link | None = None
        self._changed = trio.Event()  # the link has changed; then there is a new event
        self._ended: Callable[[], Exception] | None = None
        self._closing = trio.CancelScope()
        self._closed = False
        self._last_ref = 0
        self._connections = self._heartbeats = 0

    def __repr__(self) -> str:
        state = "ended" if self._ended else "connected" if self._link else "not connected"
        return f"<ClientSocket {self.options.place}, {state}, {len(self._topics)} topics>"

    def join(
        self, topic: str, params: Any = None, *, since: str | None = None, timeout: float | None = None
    ) -> AbstractAsyncContextManager[ClientTopic]:
        """Join a topic as long as a block runs: ``async with socket.join("room:lobby") as room``.

        After an outage or a failure in the server the topic is joined again by itself, from its position on.

        Args:
            topic: the topic's name.
            params: the parameters of the join: what JSON can hold, or bytes; an empty object by default.
            since: the position from which on missed messages come first; see :attr:`ClientTopic.position`.
            timeout: seconds for the join, and for the leave; those of the socket by default.

        Raises:
            JoinFailed: the server refuses.
            ReplyTimeout: it has not answered in time.
            SocketEnded: the socket does not come back.
            TopicClientError: this socket has joined the topic already.
            MessageNotEncodable: the parameters cannot be encoded, or the name is too long.

        At the end of the block the topic is left, and the block waits for the server's answer; not after an exception.

        Cancellation: leaves the topic without waiting.
        """
        seconds = self.options.timeout if timeout is None else timeout
        return self._joined(topic, params, since, seconds)

    def statistics(self) -> SocketStatistics:
        """Figures of this moment."""
        return SocketStatistics(
            self._link is not None, self._connections, self._heartbeats, len(self._topics), self.waiting
        )

    @asynccontextmanager
    async def _joined(self, topic: str, params: Any, since: str | None, timeout: float) -> AsyncIterator[ClientTopic]:
        membership = Membership(self, topic, params, since, timeout)
        if self._ended is not None:
            raise self._ended()
        if topic in self._topics:
            raise TopicClientError(f"this socket has joined {topic!r} already: leave it first, or use that one")
        self._topics[topic] = membership
        try:
            self._nursery.start_soon(membership.run, name=f"topic {topic!r}")
            await membership.wait_joined()
            yield ClientTopic(membership, self.options.timeout)
            await membership.leave()
        finally:
            membership.drop()
            del self._topics[topic]

    # -- for its topics -----------------------------------------------------------------------------------------------

    def next_ref(self) -> str:
        """A reference that no other frame has."""
        self._last_ref += 1
        return str(self._last_ref)

    async def wait_for_link(self) -> Link:
        """The way to the server, as soon as there is one. Cancellation: at any time."""
        while self._link is None:
            await self._changed.wait()
        return self._link

    # -- its life -----------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Connect, and connect again, until the end. Raises CannotConnect if the first attempt fails."""
        attempt = 0
        with self._closing:
            while True:
                began = trio.current_time()
                failure = await self._connect(task_status)
                if failure is None or self._closed:
                    break
                if not self._connections:
                    raise failure
                was_stable = isinstance(failure, Lost) and trio.current_time() - began >= STABLE
                attempt = 1 if was_stable else attempt + 1
                if (end := self._end_after(failure)) is not None:
                    self._end(end)
                    return
                code = failure.code if isinstance(failure, Lost) else None
                delay = self.options.back_off(attempt, code)
                logger.warning("%s; trying again in %.3g seconds", self._described(failure), delay)
                await trio.sleep(delay)
        self._end(lambda: SocketEnded("the socket was closed by its own side", 1000))

    def _described(self, failure: CannotConnect | Lost) -> str:
        return str(failure) if isinstance(failure, CannotConnect) else f"{self.options.place}: {failure}"

    def close(self) -> None:
        """End, in order if there is a connection."""
        self._closed = True
        if self._link is None:
            self._closing.cancel()
        else:
            self._link.scope.cancel()

    async def _connect(self, task_status: trio.TaskStatus[None]) -> CannotConnect | Lost | None:
        """One connection; returns the reason of its end, None if this side has closed it."""
        failure: BaseException | None = None

        async def conversation(connection: Connection) -> None:
            self._connections += 1
            if self._connections == 1:
                task_status.started()
            await self._converse(connection)

        options = self.options
        try:
            await talk(
                options.address(),
                options.headers,
                options.subprotocols(),
                conversation,
                timeout=options.timeout,
                max_message_size=options.max_message_size,
            )
        except* (CannotConnect, Lost) as group:
            failure = next(leaves(group))
        return failure if isinstance(failure, CannotConnect | Lost) else None

    async def _converse(self, connection: Connection) -> None:
        """Use a connection; returns if this side ends it. Raises Lost."""
        link = Link()
        with link.scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.write, connection)
                    nursery.start_soon(self._beat, link)
                    self._set_link(link)
                    while True:
                        self._take(await connection.receive(), link)
            finally:
                self._set_link(None)
                for topic in list(self._topics.values()):
                    topic.lost()

    def _set_link(self, link: Link | None) -> None:
        self._link = link
        self._changed.set()
        self._changed = trio.Event()

    async def _beat(self, link: Link) -> None:
        """Send heartbeats. Raises Lost if the server does not answer one before the next."""
        while True:
            await trio.sleep(self.options.heartbeat)
            if link.beat is not None:
                raise Lost(ABNORMAL, "the server has not answered a heartbeat")
            link.beat = self.next_ref()
            nothing = frames.encode_payload(None)
            link.send(frames.encode(None, link.beat, frames.SOCKET_TOPIC, frames.HEARTBEAT, nothing))

    def _take(self, message: str | bytes, link: Link) -> None:
        """Pass a message on; raises Lost if it is no frame."""
        try:
            frame = frames.decode(message)
            topic = self._topics.get(frame.topic)
            if topic is not None:
                topic.take(frame)
            elif frame.topic == frames.SOCKET_TOPIC:
                self._take_beat(frame, link)
        except FrameError as error:
            raise Lost(
                PROTOCOL_ERROR, f"the server does not speak the Phoenix Channels protocol 2: {error}", broken=True
            ) from error

    def _take_beat(self, frame: ServerFrame, link: Link) -> None:
        if link.beat is not None and frame.ref == link.beat:
            link.beat = None
            self._heartbeats += 1

    def _end_after(self, failure: CannotConnect | Lost) -> Callable[[], Exception] | None:
        """The error for users of the socket, if it is not to come back."""
        if isinstance(failure, CannotConnect):
            final = is_final_status(failure.status)
            return (lambda: SocketEnded(str(failure))) if final else None
        if not failure.broken and not self.options.is_final(failure.code):
            return None
        reason = f": {failure.reason}" if failure.reason else ""
        side = "by this side, as" if failure.broken else "by the server"
        message = f"the socket was closed {side}{reason} (code {failure.code})"
        return lambda: SocketEnded(message, failure.code)

    def _end(self, error: Callable[[], Exception]) -> None:
        """Never come back."""
        self._ended = error
        self._set_link(None)
        for topic in list(self._topics.values()):
            topic.end(error)
