"""Consumers: one instance per connection, one method per message type.

:class:`AsyncConsumer` has async handlers, which run in the connection's nursery. :class:`SyncConsumer` has plain ones,
which run on threads. :mod:`trio_channels._connection.connection` describes each way in which a connection can end.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol, cast

import trio

from .. import _conf
from .._asgi import protocol
from .._asgi.content import client_message
from .._asgi.protocol import Message, Receive, Scope, Send, State
from .._connection.connection import Connection
from .._connection.dispatcher import Dispatcher
from .._connection.outbox import Outbox
from .._connection.supervisor import supervise
from .._limits import Limits
from .._threads.database import run_in_thread
from .._threads.thread import run_in_trio
from ..exceptions import ChannelLayerUnavailable, UnhandledMessage
from ..layers import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ..layers.base import ChannelLayer, Overflow
from ..layers.mailbox import Mailbox
from ..layers.message import Envelope
from .groups import AsyncGroups, SyncGroups
from .handlers import check_arguments, check_class, find_handlers, handler_name, not_awaitable, why_unhandled
from .presence import AsyncPresence, SyncPresence

__all__ = ["AsyncConsumer", "SyncConsumer"]

logger = logging.getLogger("trio_channels.consumer")


class ConsumerApplication(Protocol):
    """The ASGI application that :meth:`Consumer.as_asgi` returns; it knows its consumer class."""

    consumer_class: type[Consumer]
    consumer_initkwargs: dict[str, Any]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run one connection. Cancellation: as :meth:`Consumer.__call__`."""


class Consumer:
    """The common base of asynchronous and synchronous consumers; do not subclass it directly.

    Attributes:
        channel_layer_alias: the entry of ``CHANNEL_LAYERS`` to use.
        channel_layer: the channel layer; None, which the type leaves out, if there is no such entry. A class may set
            one, in place of the entry.
        channel_name: the name of this connection's own channel; set only if there is a layer.
        scope: the connection's ASGI scope.
        handler_concurrency: the number of handlers of one connection that may run at a time; 1 by default. With more
            than one, messages are not handled in order.
        cancel_on_disconnect: whether to cancel a running handler at once when its client leaves. By default the handler
            may finish.
        mailbox_overflow: the rule for messages that the channel layer delivers faster than this connection handles
            them; None: the layer's rule.
        limits: time and count limits; None: from the settings.
    """

    channel_layer_alias: str = DEFAULT_CHANNEL_LAYER
    channel_layer: ChannelLayer | Any = None
    handler_concurrency: int = 1
    cancel_on_disconnect: bool = False
    mailbox_overflow: Overflow | None = None
    limits: Limits | None = None

    scope: Scope
    channel_name: str

    _handlers_are_async: ClassVar[bool]
    _client_handlers: ClassVar[frozenset[str]] = frozenset()
    _layer_handlers: ClassVar[frozenset[str]] = frozenset()
    _unhandled_layer_messages = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        framework = _framework(cls)
        cls._client_handlers, cls._layer_handlers = find_handlers(cls, framework, must_be_async=cls._handlers_are_async)
        check_class(cls, framework, is_async=cls._handlers_are_async)

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> ConsumerApplication:
        """An ASGI application that makes an instance of this class for each connection.

        Args:
            initkwargs: keyword arguments for each call of the class.

        Raises:
            ConfigurationError: the class does not take these arguments.
        """
        check_arguments(cls, _framework(cls), initkwargs)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await cls(**initkwargs)(scope, receive, send)

        functools.update_wrapper(application, cls, updated=())
        typed = cast(ConsumerApplication, application)
        typed.consumer_class = cls
        typed.consumer_initkwargs = initkwargs
        return typed

    def __repr__(self) -> str:
        connection = getattr(self, "_connection", None)
        return f"<{type(self).__name__} {connection!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one connection; an instance is an ASGI application for one scope.

        Raises:
            Exception: an exception of a handler or background task; bare, with a note that names the connection.

        Cancellation: the handlers are cancelled, ``disconnect`` runs in a shielded scope with a deadline.
        """
        self.scope = scope
        self._connection = connection = Connection(
            scope,
            receive,
            send,
            self.limits or _conf.limits(),
            cancel_on_disconnect=self.cancel_on_disconnect,
        )
        if self.channel_layer is None:
            self.channel_layer = get_channel_layer(self.channel_layer_alias)
        layer = self.channel_layer
        opening: AbstractContextManager[Mailbox | None] = nullcontext()
        if layer is not None:
            try:
                opening = layer.open_mailbox(
                    ring=connection.wakeup.set, offer=connection.wakeup.hand_over, overflow=self.mailbox_overflow
                )
            except ChannelLayerUnavailable as error:
                await supervise(connection, functools.partial(_fail, error))
                return
        with opening as mailbox:
            if mailbox is not None:
                self.channel_name = mailbox.name
            self._dispatcher = Dispatcher(
                connection,
                mailbox=mailbox,
                from_client=self._from_client if connection.protocol.kind != "channel" else self._from_worker,
                from_layer=self._from_layer,
                concurrency=self.handler_concurrency,
                finished=self._finished,
            )
            application = self._application()
            if mailbox is not None and self.handler_concurrency == 1 and "group_broadcast" not in self._layer_handlers:
                mailbox.broadcast = self._broadcaster()
            try:
                await supervise(connection, application, self._end)
            finally:
                # The dispatcher refers back to this consumer. Without the cycle both are freed at once, and not by a
                # pass of the garbage collector, which stops all connections, the longer the more there are.
                del self._dispatcher

    def _application(self) -> Callable[[], Awaitable[Message | None]]:
        return self._dispatcher.run

    #: Returns whether the connection is finished although the client is still there; None: never.
    _finished: Callable[[], bool] | None = None

    def _from_client(self, event: Message) -> Awaitable[object]:
        if handler_name(event["type"]) in self._client_handlers:
            return self._handle(event)
        raise UnhandledMessage(
            f"the server delivered {event['type']!r}, but {why_unhandled(type(self), event['type'])}"
        )

    async def _from_worker(self, message: Message) -> None:
        await self._from_client(message)
        self._connection.events.dealt_with()

    def _from_layer(self, message: Message) -> Awaitable[object] | None:
        kind = message.get("type")
        if handler_name(kind) in self._layer_handlers:
            return self._handle(message)
        for_client = client_message(message)
        if for_client is not None and self._connection.protocol.kind == "websocket":
            connection = self._connection
            is_open = connection.accepted and connection.protocol.state is State.OPEN
            return self._to_client(for_client) if is_open else None
        if kind != "channel.layer.gap":
            self._unhandled_layer_messages += 1
            if self._unhandled_layer_messages == 1:
                logger.warning(
                    "%s ignores a channel layer message of type %r: %s. Its further ignored messages are not logged",
                    protocol.describe(self.scope),
                    kind,
                    why_unhandled(type(self), kind),
                )
        return None

    def _broadcaster(self) -> Callable[[Envelope], bool]:
        return self._connection.broadcast

    def _to_client(self, message: Message) -> Awaitable[None]:
        """Send a message of :meth:`ChannelLayer.group_broadcast` in its turn."""
        return self._connection.send(message)

    async def _end(self, event: Message) -> None:
        if handler_name(event["type"]) in self._client_handlers:
            await self._handle(event)

    def _handle(self, message: Message) -> Awaitable[object]:
        """Start the handler of a message; the caller has checked that there is one."""
        raise NotImplementedError  # pragma: no cover


async def _fail(error: Exception) -> None:
    raise error


def _framework(cls: type) -> tuple[type, ...]:
    """The framework's classes among a class and its bases."""
    own = ("trio_channels.consumer", "trio_channels.generic.", "trio_channels.topics.")
    return tuple(base for base in cls.__mro__ if base.__module__.startswith(own))


class AsyncConsumer(AsyncGroups, AsyncPresence, Consumer):
    """A consumer whose handlers are async methods.

    Handlers of one connection run one at a time, in order; handlers of different connections interleave at their
    awaits. ``raise StopConsumer()`` ends the connection.
    """

    _handlers_are_async = True

    def dispatch(self, message: Message) -> Awaitable[None]:
        """Call the handler of a message; override, with an async method, to wrap every handler of the class."""
        # Not a coroutine function: an additional coroutine costs time and memory with every message.
        handler = getattr(self, handler_name(message["type"]))
        handling: Awaitable[None] = handler(message)
        if not hasattr(handling, "__await__"):
            raise not_awaitable(self, handler, handling)
        return handling

    def _handle(self, message: Message) -> Awaitable[object]:
        handling = self.dispatch(message)
        if not hasattr(handling, "__await__"):
            raise not_awaitable(self, self.dispatch, handling)
        return handling

    async def send(self, message: Message) -> None:
        """Send an ASGI message to the client.

        Raises:
            ConnectionClosed: the client has gone. Uncaught it ends the handler normally.
            IllegalMessage: the message is malformed or not allowed now.

        Cancellation: seen before the message goes to the server; later it may or may not arrive.
        """
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
        """Call the handler of a message, on a thread of the pool; override to wrap every handler of the class."""
        getattr(self, handler_name(message["type"]))(message)

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
