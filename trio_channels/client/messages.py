"""The messages of a topic, and the buffer in which they wait for the iteration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from .._concurrency.wakeup import Wakeup
from .frames import JOIN


class Message(msgspec.Struct, frozen=True):
    """A message from the server.

    Attributes:
        event: the event's name. ``presence_state`` and ``presence_diff`` tell of changes of the presence.
        payload: the content: what JSON holds, or bytes.
        position: its place in the topic's history; None if the topic has none, or if it is told later.
    """

    event: str
    payload: Any = None
    position: str | None = None


class Rejoined(Message, frozen=True):
    """The topic was joined again: its place between the messages is where the connection was lost.

    Attributes:
        event: ``phx_join``.
        payload: the reply to the join.
        recovered: whether no message is missing; those that were missed follow. Otherwise read the state anew.
    """

    event: str = JOIN
    recovered: bool = False


class Buffer:
    """Messages that wait for the iteration. When it is full further ones are dropped, and it is *behind*."""

    def __init__(self, capacity: int) -> None:
        self.behind = False
        self._capacity = capacity
        self._messages: deque[Message] = deque()
        self._arrived = Wakeup()
        self._end: Callable[[], Exception] | None = None

    def put(self, message: Message) -> bool:
        """Take a message; returns False if it is dropped."""
        if self.behind or len(self._messages) >= self._capacity:
            self.behind = True
            return False
        self._messages.append(message)
        self._arrived.set()
        return True

    def put_rejoined(self, message: Rejoined) -> None:
        """Take what is never dropped. The messages go on after it. Two without a message between them become one."""
        self.behind = False
        if self._messages and isinstance(last := self._messages[-1], Rejoined):
            self._messages.pop()
            message = msgspec.structs.replace(message, recovered=message.recovered and last.recovered)
        self._messages.append(message)
        self._arrived.set()

    def end(self, error: Callable[[], Exception]) -> None:
        """The iteration ends after the messages that are there."""
        self._end = error
        self._arrived.set()

    async def next(self, catch_up: Callable[[], object]) -> Message:
        """The next message. `catch_up` is called when all were read and some were dropped.

        Raises:
            TopicEnded, SocketEnded, JoinFailed: the topic has ended for this reason.

        Cancellation: loses no message.
        """
        await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._end is not None:
                raise self._end()
            if self.behind:
                catch_up()
            await self._arrived.wait()
        return self._messages.popleft()
