"""Consumers: one instance per connection, one method per message type.

:class:`AsyncConsumer` has async handlers, which run in the connection's nursery. :class:`SyncConsumer` has plain ones,
which run on threads. :mod:`trio_channels._connection.connection` describes each way in which a connection can end.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .._asgi.protocol import Message
from .._connection.outbox import Outbox
from .._threads.database import run_in_thread
from .._threads.thread import run_in_trio
from ..layers.message import Envelope
from .base import Consumer
from .groups import AsyncGroups, SyncGroups
from .handlers import get_handler_name, handler_name, not_awaitable, not_synchronous
from .presence import AsyncPresence, SyncPresence

__all__ = ["AsyncConsumer", "SyncConsumer", "get_handler_name"]


async def _nothing() -> None:
    """Stands for the handler of a message that has none."""


class AsyncConsumer(AsyncGroups, AsyncPresence, Consumer):
    """A consumer whose handlers are async methods.

    Handlers of one connection run one at a time, in order; handlers of different connections interleave at their
    awaits. ``raise StopConsumer()`` ends the connection.
    """

    _handlers_are_async = True

    def dispatch(self, message: Message) -> Awaitable[None]:
        """Call the handler of a message; override, with an async method, to wrap every handler of the class.

        An override also gets the messages of the channel layer that have no handler.
        """
        # Not a coroutine function: an additional coroutine costs time and memory with every message.
        handler = self._handler_of(message)
        if handler is None:
            return _nothing()
        handling: Awaitable[None] = handler(message)
        if not hasattr(handling, "__await__"):
            raise not_awaitable(self, handler, handling)
        return handling

    def _handle(self, message: Message) -> Awaitable[object]:
        name = handler_name(message["type"])
        handlers = self._handlers
        # As dispatch() does, with three calls less for each message.
        plain = name in handlers.methods and not handlers.dispatches
        called: Callable[[Message], Awaitable[object]] = getattr(self, name) if plain else self.dispatch
        handling = called(message)
        if not hasattr(handling, "__await__"):
            raise not_awaitable(self, called, handling)
        return handling

    async def send(self, message: Message) -> None:
        """Send an ASGI message to the client.

        Raises:
            ConnectionClosed: the client has gone. Uncaught it ends the handler normally.
            IllegalMessage: the message is malformed or not allowed now.

        Cancellation: seen before the message goes to the server; later it may or may not arrive.
        """
        await self._connection.send(message)

    async def base_send(self, message: Message) -> None:
        """Send an ASGI message past a ``send`` that a subclass overrides; raises, and is cancelled, as :meth:`send`."""
        await self._connection.send(message)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a background task in the connection's nursery; it ends with the connection at the latest.

        An exception of the task closes the connection, as a handler's does.

        Args:
            function: an async function, called with `args`.
            name: the task's name in error messages; the function's by default.
        """
        self._connection.start_soon(function, *args, name=name)


class SyncConsumer(SyncGroups, SyncPresence, Consumer):
    """A consumer whose handlers are plain methods; each call runs on a thread of the pool.

    Handlers of one connection run one at a time, in order, but not always on the same thread. Handlers of different
    connections run in parallel, up to ``WORKER_THREADS``. Between handlers a connection holds no thread.
    """

    _handlers_are_async = False
    _outbox: Outbox

    def _application(self) -> Callable[[], Awaitable[Message | None]]:
        self._outbox = Outbox(self._connection)
        return self._dispatch_and_write

    def _broadcaster(self) -> Callable[[Envelope], bool]:
        return self._outbox.broadcast

    async def _to_client(self, message: Message) -> None:
        await self._outbox.drained()  # the messages of earlier handlers
        await self._connection.send(message)

    async def _dispatch_and_write(self) -> Message | None:
        self._connection.start_soon(self._outbox.write, name="writer")
        event = await self._dispatcher.run()
        await self._outbox.drained()
        return event

    def dispatch(self, message: Message) -> None:
        """Call the handler of a message, on a thread of the pool; override to wrap every handler of the class.

        An override also gets the messages of the channel layer that have no handler.
        """
        handler = self._handler_of(message)
        if handler is not None and inspect.iscoroutine(result := handler(message)):
            result.close()
            raise not_synchronous(self, handler)

    async def _handle(self, message: Message) -> None:
        try:
            await run_in_thread(self.dispatch, message)
        except BaseException:
            with trio.move_on_after(self._connection.limits.send_timeout):
                await self._outbox.drained()  # messages sent before the failure still go out
            raise
        # Otherwise a client that reads slowly could go on sending, and its answers would fill the outbox.
        if self._outbox.congested:
            await self._outbox.has_room()

    def send(self, message: Message) -> None:
        """Send an ASGI message to the client; returns when it is queued, in order.

        Raises:
            ConnectionClosed: the client has gone, or has read nothing for ``SEND_TIMEOUT`` seconds.
            IllegalMessage: the message is malformed or not allowed now.
        """
        self._outbox.put(message)

    def base_send(self, message: Message) -> None:
        """Send an ASGI message past a ``send`` that a subclass overrides; see :meth:`send`."""
        self._outbox.put(message)

    def start_soon(self, function: Callable[..., object], *args: Any, name: object = None) -> None:
        """Run a plain function on a thread of the pool, in the background. The end of the connection waits for it.

        An exception of the function closes the connection, as a handler's does. Call this from a handler, or from a
        function that this method has started.

        Args:
            function: a plain function, called with `args`.
            name: the task's name in error messages; the function's by default.

        Raises:
            TypeError: `function` is async.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"start_soon() of a synchronous consumer expects a plain function; got {function!r}")

        @functools.wraps(function)
        async def run() -> None:
            await run_in_thread(function, *args)

        async def start() -> None:
            self._connection.start_soon(run, name=name or function)

        run_in_trio(start)
