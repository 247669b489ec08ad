"""Channels' asynchronous consumers for asyncio code: the connection is Trio's, the handlers run on asyncio."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from .. import _conf
from .._asgi.protocol import Message, Receive, Scope, Send
from .._connection import census
from .._connection.connection import Connection
from ..consumer import AsyncConsumer as TrioConsumer
from ..generic import http, websocket
from ..layers import get_channel_layer
from . import layers
from .crossing import (
    TaskTree,
    call_asyncio,
    call_trio,
    enter_loop,
    for_asyncio,
    for_trio,
    on_asyncio,
)

logger = logging.getLogger("trio_channels.compat")


class _Connection(Connection):
    """A connection whose consumer sends from asyncio."""

    __slots__ = ()

    def send(self, message: Message) -> Awaitable[None]:
        """See :meth:`Connection.send`."""
        return call_trio(super().send, message) if on_asyncio() else super().send(message)


class AsyncConsumer(TrioConsumer):
    """An asynchronous consumer whose handlers run on asyncio; see :class:`trio_channels.consumer.AsyncConsumer`."""

    _connection_class = _Connection

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("__call__")
        if own is not None and not cls.__module__.startswith("trio_channels."):
            cls.__call__ = _written_for_asyncio(own)  # type: ignore[method-assign, assignment]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one connection, called from Trio or from asyncio code. Raises and cancellation: as any consumer's."""
        if on_asyncio():
            await call_trio(self._run, scope, for_trio(receive), for_trio(send))
        else:
            await self._run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await enter_loop()
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        tree = TaskTree()
        with census.on_asyncio(name) as first, tree.active():
            if first:
                logger.warning(
                    "%s runs on asyncio, inside of Trio, since it comes from the package 'channels'. It takes several "
                    "times the processor time of one on Trio: to move it, import its base class from trio_channels",
                    name,
                )
            if self.channel_layer is None:
                self.channel_layer = get_channel_layer(self.channel_layer_alias)
            self.channel_layer = layers.for_asyncio(self.channel_layer)
            try:
                await super().__call__(scope, receive, send)
            finally:
                await tree.end((self.limits or _conf.limits()).disconnect_timeout, name)

    def _handle(self, message: Message) -> Awaitable[object]:
        return call_asyncio(super()._handle, message)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start an asyncio function in the background; see :meth:`trio_channels.consumer.AsyncConsumer.start_soon`."""
        self._connection.start_soon(functools.partial(call_asyncio, function), *args, name=name or function)


class AsyncWebsocketConsumer(AsyncConsumer, websocket.AsyncWebsocketConsumer):
    """See :class:`trio_channels.generic.websocket.AsyncWebsocketConsumer`; its handlers run on asyncio."""


class AsyncJsonWebsocketConsumer(AsyncWebsocketConsumer, websocket.AsyncJsonWebsocketConsumer):
    """See :class:`trio_channels.generic.websocket.AsyncJsonWebsocketConsumer`; its handlers run on asyncio."""


class AsyncHttpConsumer(AsyncConsumer, http.AsyncHttpConsumer):
    """See :class:`trio_channels.generic.http.AsyncHttpConsumer`; its handlers run on asyncio."""

    async def _serve(self, message: Message) -> None:
        await call_asyncio(super()._serve, message)


def _written_for_asyncio(
    own: Callable[[Any, Scope, Receive, Send], Awaitable[None]],
) -> Callable[[Any, Scope, Receive, Send], Awaitable[None]]:
    """A ``__call__`` of a subclass, which is asyncio code: callable from Trio, too."""

    @functools.wraps(own)
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807
        if on_asyncio():
            await own(self, scope, receive, send)
        else:
            await run_on_asyncio(functools.partial(own, self), scope, receive, send)

    return __call__


async def run_on_asyncio(application: Callable[..., Awaitable[Any]], scope: Scope, receive: Receive, send: Send) -> Any:
    """Run an ASGI application that is written for asyncio; its tasks end with it.

    Cancellation: cancels the application, and waits for its end.
    """
    await enter_loop()
    tree = TaskTree()
    with tree.active():
        try:
            return await call_asyncio(application, scope, *for_asyncio(receive, send))
        finally:
            await tree.end(_conf.limits().disconnect_timeout, repr(application))
