"""One topic that a client has joined, for its users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from ..exceptions import PushFailed, TopicEnded
from .membership import Membership
from .messages import Message
from .presence import PresenceState
from .pushes import Replies


class ClientTopic:
    """A topic that this client has joined; :meth:`ClientSocket.join` makes it.

    Iterate over it for its messages: ``async for message in room``. After an outage, :class:`Rejoined` is one of them.
    The iteration ends when the server ends the topic. It raises :class:`SocketEnded` if the socket has ended for good,
    and :class:`JoinFailed` if the server refuses a further join. One task at a time may iterate.

    Cancellation of the iteration: loses no message.
    """

    def __init__(self, membership: Membership, timeout: float) -> None:
        self._membership = membership
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<ClientTopic {self.name!r}, {self._membership.state}>"

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._membership.name

    @property
    def response(self) -> Any:
        """The reply to the newest join."""
        return self._membership.response

    @property
    def recovered(self) -> bool:
        """Whether the newest join has recovered all messages since its position."""
        return self._membership.recovered

    @property
    def position(self) -> str | None:
        """The position of the newest message that has come: the `since` of another join. None without a history.

        Messages up to it may still wait for the iteration; :attr:`Message.position` is that of a single one.
        """
        return self._membership.position

    @property
    def presence(self) -> PresenceState:
        """The metas of those that are in the topic, by key. Empty unless the server shows the presence."""
        return self._membership.presence

    async def push(self, event: str, payload: Any = None, *, timeout: float | None = None, wait: bool = True) -> Any:
        """Push an event, and wait for the reply: the first one of a stream, or None if that is empty.

        Args:
            event: the event's name.
            payload: a value that JSON can hold, or bytes; an empty object by default.
            timeout: seconds for all of it; those of the socket by default.
            wait: whether the push may wait until the topic is joined again, if it is not joined now.

        Raises:
            PushFailed: the server has answered with an error.
            ReplyTimeout: the reply has not come in time.
            ReplyLost: the connection, or the topic in the server, has ended before the reply.
            NotConnected: it was not sent, as the topic is not joined now and it must not wait, or as too many wait.
            TopicEnded, JoinFailed, SocketEnded: the topic has ended.
            MessageNotEncodable: the payload cannot be encoded, or the event's name cannot be sent.

        Cancellation: a push that still waits is not sent. One that was sent is handled.
        """
        pending = self._membership.offer(event, payload, wait)
        try:
            status, response = await pending.next(self._timeout if timeout is None else timeout)
        finally:
            self._membership.forget(pending)
        if status not in ("ok", "end"):
            raise PushFailed(response)
        return response if status == "ok" else None

    @asynccontextmanager
    async def _stream(self, event: str, payload: Any, timeout: float, wait: bool) -> AsyncIterator[Replies]:
        pending = self._membership.offer(event, payload, wait, self._membership.capacity)
        try:
            yield Replies(pending, timeout)
        finally:
            self._membership.forget(pending)

    def stream(
        self, event: str, payload: Any = None, *, timeout: float | None = None, wait: bool = True
    ) -> AbstractAsyncContextManager[Replies]:
        """Push an event to a handler that streams its replies: ``async with room.stream("count", 3) as replies``.

        Iterate over the replies. Those that come after the end of the block are dropped; the handler is not told.

        Args, Raises, cancellation: as :meth:`push`, with `timeout` for each reply. ReplyLost is also raised after
        more replies than the socket's `capacity` have come and were not read.
        """
        return self._stream(event, payload, self._timeout if timeout is None else timeout, wait)

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self._membership.next_message()
        except TopicEnded:
            raise StopAsyncIteration from None
