"""The lifespan protocol (ASGI specification, Lifespan 2.0): opens the channel layers, and closes them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from .._asgi.protocol import Receive, Scope, Send
from . import channel_layers

logger = logging.getLogger("trio_channels.lifespan")

#: To servers that would start, and then fail in every request; and in every request to those that have.
NOT_TRIO = (
    "trio-channels needs a server that runs on Trio, and this one does not: use `trio-channels serve`, "
    "or `hypercorn --worker-class trio`"
)


@asynccontextmanager
async def open_layers() -> AsyncIterator[None]:
    """Every layer of ``CHANNEL_LAYERS``, open for the length of the block."""
    async with AsyncExitStack() as layers:
        for alias in channel_layers.configs:
            await layers.enter_async_context(channel_layers[alias])
        yield


async def lifespan(_scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application for the ``lifespan`` scope.

    Every layer of ``CHANNEL_LAYERS`` is open between start-up and shutdown, with its tasks in this task's nurseries. A
    layer that cannot be opened is logged with its traceback, and reported to the server, which then does not start. Nor
    does one on asyncio.

    Cancellation: the layers are closed.
    """
    await receive()
    if not trio.lowlevel.in_trio_run():
        await send({"type": "lifespan.startup.failed", "message": NOT_TRIO})
        return
    async with AsyncExitStack() as layers:
        try:
            await layers.enter_async_context(open_layers())
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
