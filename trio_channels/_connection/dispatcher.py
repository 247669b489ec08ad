"""One task that dispatches a connection's events and channel layer messages to their handlers.

The rules:

- Events of one source are handled in order, and one at a time unless `concurrency` is above 1.
- The sources take turns, so that neither can starve the other.
- A full mailbox closes its own connection and no other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import trio

from .._asgi import protocol
from .._asgi.close_codes import SERVICE_RESTART, TRY_AGAIN_LATER
from .._asgi.protocol import DISCONNECTS, Message
from .._concurrency.wakeup import Wakeup
from .._tracing import traced
from ..exceptions import ConnectionClosed, StopConsumer
from ..layers.mailbox import Mailbox
from ..layers.message import Gap
from .connection import Connection
from .parting import TOO_SLOW, UNAVAILABLE

logger = logging.getLogger("trio_channels.connection")

#: Starts to handle a message: returns an awaitable, or None if there is nothing to await.
Handler = Callable[[Message], Awaitable[object] | None]


class Dispatcher:
    """The body of a consumer's connection, with client events and, if there is a mailbox, layer messages."""

    __slots__ = (
        *("_concurrency", "_connection", "_finished", "_from_client", "_from_layer", "_handler_done"),
        *("_mailbox", "_running", "_stopped"),
    )

    def __init__(
        self,
        connection: Connection,
        *,
        mailbox: Mailbox | None,
        from_client: Handler,
        from_layer: Handler,
        concurrency: int = 1,
        finished: Callable[[], bool] | None = None,
    ) -> None:
        self._connection = connection
        self._mailbox = mailbox
        self._from_client = traced(from_client)
        self._from_layer = traced(from_layer)
        self._concurrency = concurrency  # handlers that may run at a time
        self._finished = finished  # called after each event: whether the connection has nothing more to do
        self._running = 0
        self._stopped = False
        self._handler_done: Wakeup | None = None  # made for the first wait
        connection.mailbox = mailbox
        if mailbox is not None:
            mailbox.on_overflow = connection.cut_as_too_slow
            mailbox.on_failure = connection.cut_without_layer

    async def run(self) -> Message | None:
        """Dispatch until the client's disconnect, which is returned, or until the connection is finished."""
        connection, wakeup = self._connection, self._connection.wakeup
        start = self._start_handling if self._concurrency == 1 else self._handle_beside
        # For metrics; handlers that run side by side are timed in their tasks.
        timed = None if connection.series is None or self._concurrency > 1 else connection.series.handlers
        began = 0.0
        given: Any
        handling: Awaitable[object] | None
        while True:
            # Handlers are awaited here, not in another coroutine: each one more costs time and memory per message, most
            # when a thousand connections send at the same time.
            try:
                if self._stopped:
                    await self._wait_for_handlers(0)
                    return None
                event = connection.events.take()
                if event is not None:
                    if event["type"] in DISCONNECTS:
                        if connection.cancel_on_disconnect and self._running:
                            # The connection saw this task waiting for an event, not the handlers beside it.
                            connection.application_scope.cancel()
                        await self._wait_for_handlers(0)
                        return event
                    # Everything else comes after the handshake, which is handled alone.
                    if timed is not None:
                        began = perf_counter()
                    alone = event["type"] == "websocket.connect"
                    if (handling := (self._start_handling if alone else start)(self._from_client, event)) is not None:
                        await handling
                    connection.activity = None
                    if timed is not None:
                        timed.observe(perf_counter() - began)
                # A finished connection handles no more layer messages: their handlers would only send more.
                finished = self._finished is not None and self._finished()
                mailbox = None if finished else self._mailbox
                if mailbox is not None and (mailbox.overflowed or mailbox.failure is not None):
                    await self._close_for(mailbox)
                elif mailbox is not None and (item := mailbox.get_nowait()) is not None:
                    if timed is not None:
                        began = perf_counter()
                    given = item.as_event() if isinstance(item, Gap) else item
                    if (handling := start(self._from_layer, given)) is not None:
                        await handling
                    connection.activity = None
                    if timed is not None:
                        timed.observe(perf_counter() - began)
                elif event is None:
                    if finished and not self._running:
                        return None
                    given = handling = None  # no longer in memory while it waits
                    # The most frequent case: a message comes while nothing waits, and then another one. Every other
                    # change sets the wakeup, so that wait() returns no message.
                    while isinstance(given := await wakeup.wait(), dict) and not finished:
                        if timed is not None:
                            began = perf_counter()
                        if (handling := start(self._from_layer, given)) is not None:
                            await handling
                        connection.activity = given = handling = None
                        if timed is not None:
                            timed.observe(perf_counter() - began)
            except Exception as error:
                if timed is not None and connection.activity is not None:
                    timed.observe(perf_counter() - began)
                if not await self._is_normal(error, connection.activity):
                    raise
                connection.activity = None  # the rest of the client's events is still handled

    def _start_handling(self, handler: Handler, message: Message) -> Awaitable[object] | None:
        self._connection.activity = message.get("type")
        return handler(message)

    async def _is_normal(self, error: Exception, activity: str | None) -> bool:
        """Whether a handler may end with this exception; otherwise a note is added to it."""
        if activity is None:  # not raised by a handler
            return False
        if isinstance(error, ConnectionClosed):
            if self._connection.ending:
                logger.debug("the handler of %r ended: the connection is closed", activity)
                return True
            await trio.lowlevel.checkpoint_if_cancelled()  # a cancellation is the more precise reason
        elif not isinstance(error, StopConsumer):
            error.add_note(f"in the handler of {activity!r}")
        return False

    async def _handle_beside(self, handler: Handler, message: Message) -> None:
        await self._wait_for_handlers(self._concurrency - 1)
        if not self._stopped:
            self.start(handler, message)

    def start(self, handler: Handler, message: Message) -> None:
        """Start a handler in a task of its own. The end of the connection waits for it; other handlers do not."""
        self._running += 1
        self._connection.nursery.start_soon(self._handle_in_task, handler, message)

    async def _handle_in_task(self, handler: Handler, message: Message) -> None:
        began = perf_counter()
        try:
            if (handling := self._start_handling(handler, message)) is not None:
                await handling
            self._connection.activity = None
        except StopConsumer:
            self._stopped = True
        except Exception as error:
            if not await self._is_normal(error, message.get("type")):
                raise
        finally:
            if self._connection.series is not None:
                self._connection.series.handlers.observe(perf_counter() - began)
            self._running -= 1
            if self._handler_done is not None:
                self._handler_done.set()
            self._connection.wakeup.set()

    async def _wait_for_handlers(self, at_most: int) -> None:
        while self._running > at_most:
            self._handler_done = self._handler_done or Wakeup()
            await self._handler_done.wait()

    async def _close_for(self, mailbox: Mailbox) -> None:
        self._mailbox = None  # its messages are lost; the close code tells the client
        place = protocol.describe(self._connection.scope)
        if mailbox.failure is None:
            logger.warning("closing %s with 1013: %r", place, mailbox)
            await self._connection.close(TRY_AGAIN_LATER, TOO_SLOW)
        else:  # the layer has logged it
            logger.debug("closing %s with 1012: %s", place, mailbox.failure)
            await self._connection.close(SERVICE_RESTART, UNAVAILABLE)
