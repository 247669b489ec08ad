"""The lifespan of an application in a test, as a server runs it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config

from .._asgi.protocol import ASGIApplication
from ..server.lifespan import Lifespan

__all__ = ["running_lifespan"]


@asynccontextmanager
async def running_lifespan(application: ASGIApplication) -> AsyncIterator[dict[str, Any]]:
    """Start an application before the block, and shut it down after it, as a server does.

    Args:
        application: the ASGI application, such as that of ``asgi.py``.

    Returns:
        The dict that servers copy into each scope: ``communicator.scope["state"] = dict(state)``.

    Raises:
        LifespanFailureError: from hypercorn; the application did not start or end, or its lifespan has failed during
            the block, which is cancelled then. The traceback is in the log.

    Cancellation: the application's lifespan is cancelled.
    """
    state: dict[str, Any] = {}
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    lifespan = Lifespan(ASGIWrapper(cast(Any, application)), config, state)
    block = trio.CancelScope()

    async def cancel_when_failed() -> None:
        await lifespan.failed()
        block.cancel()

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:  # errors are raised outside of the nursery, which would wrap them in a group
            nursery.start_soon(lifespan.run)
            await lifespan.start_up()
            nursery.start_soon(cancel_when_failed)
            with block:
                yield state
        except Exception as error:
            failure = error
        try:
            await lifespan.shut_down()
        except Exception as error:
            failure = failure or error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
