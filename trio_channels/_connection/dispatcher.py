"""One task that takes what the client and the channel layer have for a connection, and has it handled.

The rules: events of one source are handled in the order they came; one at a time, unless `concurrency` says otherwise;
the sources take turns, so that neither can starve the other. A full mailbox closes its own connection and no other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from .._asgi import protocol
from .._asgi.close_codes import SERVICE_RESTART, TRY_AGAIN_LATER
from .._asgi.protocol import DISCONNECTS, Message
from .._concurrency.wakeup import Wakeup
from ..exceptions import ConnectionClosed, StopConsumer
from ..layers.mailbox import Mailbox
from ..layers.message import Gap
from .connection import Connection

logger = logging.getLogger("trio_channels.connection")

#: The reason that a client is given whose mailbox was full.
TOO_SLOW = "too slow for its groups"

#: The reason that a client is given whose channel layer is broken.
LAYER_BROKEN = "service unavailable"

#: Starts the handling of a message: returns what is to be awaited, or None where there is nothing to do.
Handler = Callable[[Message], Awaitable[object] | None]


class Dispatcher:
    """The body of a consumer's connection.

    Args:
        connection: the client's side.
        mailbox: the channel layer's side, if there is one.
        from_client: handles an event of the client.
        from_layer: handles a message of the channel layer.
        concurrency: how many handlers may run at a time.
        finished: asked after each event; when it says yes, the connection has nothing more to do.
    """

    __slots__ = (
        "_concurrency",
        "_connection",
        "_finished",
        "_from_client",
        "_from_layer",
        "_handler_done",
        "_mailbox",
        "_running",
        "_stopped",
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
        self._from_client = from_client
        self._from_layer = from_layer
        self._concurrency = concurrency
        self._finished = finished
        self._running = 0
        self._stopped = False
        self._handler_done = Wakeup()
        if mailbox is not None:
            # A handler that is stuck, in a send to a client that does not read, must not keep the connection.
            grace = connection.limits.disconnect_timeout
            mailbox.on_overflow = lambda: connection.cut(TRY_AGAIN_LATER, TOO_SLOW, after=grace)
            mailbox.on_failure = lambda: connection.cut(SERVICE_RESTART, LAYER_BROKEN, after=grace)

    async def run(self) -> Message | None:
        """Dispatch until the client's disconnect, which is returned, or until the connection is finished."""
        connection, wakeup = self._connection, self._connection.wakeup
        start = self._start_handling if self._concurrency == 1 else self._handle_beside
        while True:
            # What a handler does is awaited here, and not in a coroutine of its own: each one more on the way costs
            # time and memory with every message, most when a thousand connections are in a send at the same time.
            try:
                if self._stopped:
                    await self._wait_for_handlers(0)
                    return None
                event = connection.events.take()
                if event is not None:
                    if event["type"] in DISCONNECTS:
                        if connection.cancel_on_disconnect and self._running:
                            # The connection saw this task waiting for an event, but not the handlers beside it.
                            connection.application_scope.cancel()
                        await self._wait_for_handlers(0)
                        return event
                    # The handshake is the one event that everything else comes after.
                    begin = self._start_handling if event["type"] == "websocket.connect" else start
                    if (handling := begin(self._from_client, event)) is not None:
                        await handling
                    connection.activity = None
                # What has nothing more to say has no use for messages, whose handlers would only say more.
                finished = self._finished is not None and self._finished()
                mailbox = None if finished else self._mailbox
                if mailbox is not None and (mailbox.overflowed or mailbox.failure is not None):
                    await self._close_for(mailbox)
                elif mailbox is not None and (item := mailbox.get_nowait()) is not None:
                    message = item.as_event() if isinstance(item, Gap) else item
                    if (handling := start(self._from_layer, message)) is not None:
                        await handling
                    connection.activity = None
                elif event is None:
                    if finished and not self._running:
                        return None
                    # By far the most frequent case: a message comes while nothing is to do, and then another one.
                    # Whatever else there may be to look at meanwhile has rung.
                    while isinstance(given := await wakeup.wait(), dict) and not finished:
                        if (handling := start(self._from_layer, given)) is not None:
                            await handling
                        connection.activity = None
            except Exception as error:
                if not await self._is_normal(error, connection.activity):
                    raise
                connection.activity = None  # then the rest of what the client sent is handled

    def _start_handling(self, handler: Handler, message: Message) -> Awaitable[object] | None:
        self._connection.activity = message.get("type")
        return handler(message)

    async def _is_normal(self, error: Exception, activity: str | None) -> bool:
        """Whether what was raised is how a handler may end; a note is added to what is not."""
        if activity is None:  # no handler's
            return False
        if isinstance(error, ConnectionClosed):
            if self._connection.ending:
                logger.debug("the handler of %r ended: the connection is closed", activity)
                return True
            await trio.lowlevel.checkpoint_if_cancelled()  # then that is why, and the more precise answer
        elif not isinstance(error, StopConsumer):
            error.add_note(f"in the handler of {activity!r}")
        return False

    async def _handle_beside(self, handler: Handler, message: Message) -> None:
        await self._wait_for_handlers(self._concurrency - 1)
        if not self._stopped:
            self.start(handler, message)

    def start(self, handler: Handler, message: Message) -> None:
        """Start a handler that the others do not wait for; the end of the connection does."""
        self._running += 1
        self._connection.nursery.start_soon(self._handle_in_task, handler, message)

    async def _handle_in_task(self, handler: Handler, message: Message) -> None:
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
            self._running -= 1
            self._handler_done.set()
            self._connection.wakeup.set()

    async def _wait_for_handlers(self, at_most: int) -> None:
        while self._running > at_most:
            await self._handler_done.wait()

    async def _close_for(self, mailbox: Mailbox) -> None:
        self._mailbox = None  # what is left in it is lost, and the client told so
        place = protocol.describe(self._connection.scope)
        if mailbox.failure is None:
            logger.warning("closing %s with 1013: %r", place, mailbox)
            await self._connection.close(TRY_AGAIN_LATER, TOO_SLOW)
        else:  # which the layer has logged
            logger.debug("closing %s with 1012: %s", place, mailbox.failure)
            await self._connection.close(SERVICE_RESTART, LAYER_BROKEN)
