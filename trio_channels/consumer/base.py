"""The common base of asynchronous and synchronous consumers: one connection, and which of its messages go where."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol, cast

from .. import _conf
from .._asgi import protocol
from .._asgi.content import client_message
from .._asgi.protocol import Message, Receive, Scope, Send, State
from .._asgi.shortcut import note_shortcut
from .._connection.connection import Connection
from .._connection.dispatcher import Dispatcher
from .._connection.supervisor import supervise
from .._limits import Limits
from ..exceptions import ChannelLayerUnavailable, UnhandledMessage
from ..layers import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ..layers.base import ChannelLayer, Overflow
from ..layers.mailbox import Mailbox
from ..layers.message import Envelope
from .handlers import (
    Handlers,
    check_arguments,
    check_class,
    handler_name,
    misspelt,
    why_unhandled,
)

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
    _handlers: ClassVar[Handlers]
    _connection_class: ClassVar[type[Connection]] = Connection
    _unhandled_layer_messages = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        framework = _framework(cls)
        cls._handlers = Handlers(cls, framework, is_async=cls._handlers_are_async)
        check_class(cls, framework, is_async=cls._handlers_are_async)
        for name, meant in misspelt(cls, framework):
            logger.warning("%s has a method %s, and none called %s: is it misspelt?", cls.__name__, name, meant)

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> ConsumerApplication:
        """An ASGI application that makes an instance of this class for each connection.

        Args:
            initkwargs: keyword arguments for each call of the class.

        Raises:
            ConfigurationError: the class does not take these arguments.
        """
        check_arguments(cls, _framework(cls), initkwargs)

        def begin(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return cls(**initkwargs)(scope, receive, send)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(scope, receive, send)

        functools.update_wrapper(application, cls, updated=())
        typed = cast(ConsumerApplication, application)
        typed.consumer_class = cls
        typed.consumer_initkwargs = initkwargs
        note_shortcut(typed, begin)
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
        self._connection = connection = self._connection_class(
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
            broadcasts = self.handler_concurrency == 1 and "group_broadcast" not in self._handlers.for_layer
            if mailbox is not None and broadcasts:
                mailbox.broadcast = self._broadcaster()
            try:
                await supervise(connection, application, self._end)
            finally:
                # The dispatcher refers back to this consumer. Without the cycle both are freed at once, and not by a
                # pass of the garbage collector, which stops all connections, the longer the more there are.
                if self._connection is connection:  # else a test has called the instance again
                    del self._dispatcher

    def _application(self) -> Callable[[], Awaitable[Message | None]]:
        return self._dispatcher.run

    #: Returns whether the connection is finished although the client is still there; None: never.
    _finished: Callable[[], bool] | None = None

    def _from_client(self, event: Message) -> Awaitable[object]:
        return self._handle(event)

    async def _from_worker(self, message: Message) -> None:
        await self._from_client(message)
        self._connection.events.dealt_with()

    def _from_layer(self, message: Message) -> Awaitable[object] | None:
        kind = message.get("type")
        name = handler_name(kind)
        handlers = self._handlers
        if name in handlers.for_layer:
            return self._handle(message)
        for_client = client_message(message)
        if for_client is not None and self._connection.protocol.kind == "websocket":
            connection = self._connection
            is_open = connection.accepted and connection.protocol.state is State.OPEN
            return self._to_client(for_client) if is_open else None
        # A dispatch() of the class' own gets everything but what a sender may not forge.
        if name not in handlers.server_only and (
            (handlers.dispatches and name) or handlers.may_find(self, name)  # a message may wait for a thread
        ):
            return self._handle(message)
        self._ignore(kind)
        return None

    def _ignore(self, kind: object) -> None:
        if kind != "channel.layer.gap":
            self._unhandled_layer_messages += 1
            if self._unhandled_layer_messages == 1:
                logger.warning(
                    "%s ignores a channel layer message of type %r: %s. Its further ignored messages are not logged",
                    protocol.describe(self.scope),
                    kind,
                    why_unhandled(type(self), kind),
                )

    def _handler_of(self, message: Message) -> Callable[[Message], Any] | None:
        """The handler of a message; None for a message of the layer that has none, which is logged.

        Raises:
            UnhandledMessage: a message of the server, or of a worker's channel, has no handler.
        """
        kind = message["type"]
        name = handler_name(kind)
        handlers = self._handlers
        if name in handlers.methods:
            handler: Callable[[Message], Any] = getattr(self, name)
            return handler
        late = handlers.find(self, name)
        if late is not None:
            return late
        if name in handlers.server_only or self._connection.protocol.kind not in ("http", "websocket"):
            raise UnhandledMessage(f"the server delivered {kind!r}, but {why_unhandled(type(self), kind)}")
        self._ignore(kind)
        return None

    def _broadcaster(self) -> Callable[[Envelope], bool]:
        return self._connection.broadcast

    def _to_client(self, message: Message) -> Awaitable[None]:
        """Send a message of :meth:`ChannelLayer.group_broadcast` in its turn."""
        return self._connection.send(message)

    async def _end(self, event: Message) -> None:
        name = handler_name(event["type"])
        if name in self._handlers.methods or self._handlers.dispatches or self._handlers.may_find(self, name):
            await self._handle(event)

    def _handle(self, message: Message) -> Awaitable[object]:
        """Pass a message to ``dispatch``."""
        raise NotImplementedError  # pragma: no cover


async def _fail(error: Exception) -> None:
    raise error


def _framework(cls: type) -> tuple[type, ...]:
    """The framework's classes among a class and its bases."""
    own = ("trio_channels.consumer", "trio_channels.generic.", "trio_channels.topics.", "trio_channels.compat.")
    return tuple(base for base in cls.__mro__ if base.__module__.startswith(own))
