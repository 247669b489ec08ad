"""The queue of messages from synchronous handlers to the client.

A handler on a thread checks its message, puts it here and goes on. It does not wait for the client, so that a slow
client holds no thread. One writer task per connection sends the messages in order. A handler that is more than
``Limits.outbox`` messages ahead waits for at most ``send_timeout`` seconds; then the connection is closed as too slow.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

import trio

from .._asgi import protocol
from .._asgi.close_codes import ABNORMAL, TRY_AGAIN_LATER
from .._asgi.protocol import Message
from .._concurrency.wakeup import Wakeup
from .._threads.thread import call_soon_in_trio, in_pool_thread
from ..exceptions import BridgeError, ConnectionClosed
from .connection import Connection
from .direct import Broadcast

logger = logging.getLogger("trio_channels.connection")

#: The close reason for a slow client, once it reads on.
SLOW = "the client reads too slowly"


class Outbox:
    """The queue between threads and one connection's writer task."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limit = connection.limits.outbox
        self._messages: deque[Message] = deque()
        self._room = threading.Condition()
        self._threads_waiting = 0
        self._wakeup = Wakeup()
        self._drained = trio.lowlevel.ParkingLot()
        self._writer_runs = True  # the connection starts it before the first handler
        self._called = False  # whether a call of the writer is on its way to the Trio thread
        connection.on_closed = self._wake_threads

    def __repr__(self) -> str:
        return f"<Outbox {len(self._messages)}/{self._limit} waiting>"

    def put(self, message: Message) -> None:
        """On a thread: have a message sent, in order. Raises as ``send``, and for a client that is too slow."""
        if not in_pool_thread():
            raise BridgeError(
                "a synchronous consumer can send only in its handlers, and in functions started with start_soon()"
            )
        if not self._writer_runs:
            raise self._ended()
        if len(self._messages) >= self._limit:
            self._wait_for_room()
        # Not earlier: a close that finds no room has not closed, and the client must still be told the reason.
        self._connection.check(message)
        self._messages.append(message)
        if not self._called:
            self._called = True
            call_soon_in_trio(self._call_writer)

    def broadcast(self, envelope: Broadcast) -> bool:
        """As the connection's, unless messages wait here."""
        return not self._messages and self._connection.broadcast(envelope)

    def _wait_for_room(self) -> None:
        with self._room:
            self._threads_waiting += 1
            try:
                in_time = self._room.wait_for(self._has_room, self._connection.limits.send_timeout)
            finally:
                self._threads_waiting -= 1
        if not in_time:
            call_soon_in_trio(self._cut)
            raise ConnectionClosed(TRY_AGAIN_LATER, SLOW)
        if self._connection.closed is not None or not self._writer_runs:  # the client went while this thread waited
            raise self._ended()

    def _ended(self) -> ConnectionClosed:
        why = self._connection.closed
        return ConnectionClosed(why.code, why.reason) if why is not None else ConnectionClosed(ABNORMAL, "it is ending")

    def _call_writer(self) -> None:
        self._called = False
        self._wakeup.set()

    def _has_room(self) -> bool:
        return len(self._messages) < self._limit or self._connection.closed is not None or not self._writer_runs

    def _cut(self) -> None:
        logger.warning(
            "closing %s: the client took none of %d messages for %g seconds (SEND_TIMEOUT)",
            protocol.describe(self._connection.scope),
            len(self._messages),
            self._connection.limits.send_timeout,
        )
        self._connection.cut(TRY_AGAIN_LATER, SLOW)

    async def write(self) -> None:
        """Send messages for as long as the connection lives. A cancellation drops those that wait."""
        self._writer_runs = True
        try:
            while True:
                while self._messages:
                    try:
                        await self._connection.send_checked(self._messages[0])
                    except ConnectionClosed:
                        self._messages.clear()  # no client is there to read the rest
                    else:
                        self._messages.popleft()
                    if self._drained:
                        self._drained.unpark_all()
                    self._wake_threads()
                await self._wakeup.wait()
        finally:
            self._writer_runs = False
            self._connection.on_closed = None  # the threads are woken here; and no reference cycle is left
            self._drained.unpark_all()
            self._wake_threads()

    async def drained(self, at_most: int = 0) -> None:
        """Wait until at most `at_most` messages are left, or the writer has ended."""
        while len(self._messages) > at_most and self._writer_runs:
            await self._drained.park()

    @property
    def congested(self) -> bool:
        """Whether :meth:`has_room` would wait."""
        return len(self._messages) > self._limit // 2

    async def has_room(self) -> None:
        """Wait until the outbox is half empty, so that a handler can be expected not to fill it."""
        await self.drained(self._limit // 2)

    def _wake_threads(self) -> None:
        if self._threads_waiting:
            with self._room:
                self._room.notify_all()
