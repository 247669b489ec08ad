"""Messages of synchronous handlers on their way to the client.

A handler in a worker thread does not wait for the client: it checks its message, puts it here and goes on, so that a
client who reads slowly holds no thread. One writer task per connection sends in order. Only a handler that is more than
``Limits.outbox`` messages ahead waits, for at most ``send_timeout`` seconds; then the connection is closed as slow.
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
from .._threads.thread import call_soon_in_trio, in_worker
from ..exceptions import BridgeError, ConnectionClosed
from .connection import Connection

logger = logging.getLogger("trio_channels.connection")


#: The reason that a slow client is given, once it reads on.
SLOW = "the client reads too slowly"


class Outbox:
    """The queue between the worker threads and one connection's writer task."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limit = connection.limits.outbox
        self._messages: deque[Message] = deque()
        self._room = threading.Condition()
        self._threads_waiting = 0
        self._wakeup = Wakeup()
        self._drained = trio.lowlevel.ParkingLot()
        self._writer_runs = True  # the connection starts it before the first handler
        self._called = False  # whether the writer has been called, and has not come yet
        connection.on_closed = self._wake_threads

    def __repr__(self) -> str:
        return f"<Outbox {len(self._messages)}/{self._limit} waiting>"

    def put(self, message: Message) -> None:
        """From a worker thread: have a message sent, after those put before it.

        Raises:
            IllegalMessage: the message is malformed or not allowed now.
            ConnectionClosed: the client has gone, or was too slow for ``send_timeout`` seconds.
            BridgeError: the current thread is not a worker.
        """
        if not in_worker():
            raise BridgeError(
                "a synchronous consumer sends from its handlers, and what it has started with start_soon()"
            )
        if not self._writer_runs:
            raise self._ended()
        if len(self._messages) >= self._limit:
            self._wait_for_room()
        # Not earlier: a close that finds no room has not closed, and the client is still to be told why it is cut.
        self._connection.check(message)
        self._messages.append(message)
        if not self._called:
            self._called = True
            call_soon_in_trio(self._call_writer)

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
        if self._connection.closed is not None or not self._writer_runs:  # it went while this thread waited
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
            "closing %s: it took none of %d messages for %g seconds (SEND_TIMEOUT)",
            protocol.describe(self._connection.scope),
            len(self._messages),
            self._connection.limits.send_timeout,
        )
        self._connection.cut(TRY_AGAIN_LATER, SLOW)

    async def write(self) -> None:
        """The writer task; runs in the connection's nursery until that is cancelled."""
        self._writer_runs = True
        try:
            while True:
                while self._messages:
                    try:
                        await self._connection.send_checked(self._messages[0])
                    except ConnectionClosed:
                        self._messages.clear()  # nobody is there to read the rest
                    else:
                        self._messages.popleft()
                    if self._drained:
                        self._drained.unpark_all()
                    self._wake_threads()
                await self._wakeup.wait()
        finally:
            self._writer_runs = False
            self._connection.on_closed = None  # the threads are woken here; and nothing is left in a cycle
            self._drained.unpark_all()
            self._wake_threads()

    async def drained(self, at_most: int = 0) -> None:
        """Wait until at most so many messages wait to be handed to the server, or nobody hands them over any more."""
        while len(self._messages) > at_most and self._writer_runs:
            await self._drained.park()

    @property
    def congested(self) -> bool:
        """Whether :meth:`has_room` would wait."""
        return len(self._messages) > self._limit // 2

    async def has_room(self) -> None:
        """Wait until a handler may be expected not to fill the outbox: until it is half empty."""
        await self.drained(self._limit // 2)

    def _wake_threads(self) -> None:
        if self._threads_waiting:
            with self._room:
                self._room.notify_all()
