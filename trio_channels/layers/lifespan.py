"""The lifespan protocol (ASGI specification, Lifespan 2.0): opens and closes the channel layers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from .._asgi.foreign import NOT_TRIO
from .._asgi.protocol import Receive, Scope, Send
from ..exceptions import TrioChannelsError
from . import channel_layers

logger = logging.getLogger("trio_channels.lifespan")


@asynccontextmanager
async def open_layers() -> AsyncIterator[None]:
    """Open every layer of ``CHANNEL_LAYERS``, for the length of the block. Cancellation: the layers are closed.

    A layer whose backend is away is open, and waits for it.
    """
    async with AsyncExitStack() as layers:
        for alias in channel_layers.configs:
            await layers.enter_async_context(channel_layers[alias].open_patiently())
        yield


async def lifespan(_scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application for the ``lifespan`` scope.

    Every layer of ``CHANNEL_LAYERS`` is open between start-up and shutdown, with its tasks in this task's nurseries. A
    server starts while a layer's backend is away, and serves what does not need it. A layer that can never be opened,
    for a wrong password or setting, is reported to the server, which then does not start, and logs the reason. A server
    that runs on asyncio is told not to start.

    Cancellation: the layers are closed.
    """
    await receive()
    if not trio.lowlevel.in_trio_run():
        await send({"type": "lifespan.startup.failed", "message": NOT_TRIO})
        return
    async with AsyncExitStack() as layers:
        try:
            await layers.enter_async_context(open_layers())
        except TrioChannelsError as error:
            await send({"type": "lifespan.startup.failed", "message": f"a channel layer cannot be opened: {error}"})
            return
        except Exception as error:
            logger.exception("a channel layer could not be opened; the server will not start")
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await layers.aclose()
        except Exception as error:
            logger.exception("a channel layer could not be closed cleanly")
            await send({"type": "lifespan.shutdown.failed", "message": f"{type(error).__name__}: {error}"})
            return
    await send({"type": "lifespan.shutdown.complete"})
