"""Opening on first use, for a Trio run in which nobody opens anything beforehand: the background run of ``sync``.

Everywhere else a channel layer is opened where its tasks shall live: by the lifespan, or by an ``async with`` block.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from ..exceptions import ChannelLayerUnavailable

logger = logging.getLogger("trio_channels.background")

#: Seconds that everything opened here has to close, at the end of the process.
CLOSING_TIME = 2.0

_opener_of_run: trio.lowlevel.RunVar[Opener | None] = trio.lowlevel.RunVar("trio_channels opener", None)


class _Kept:
    """One layer that is being opened, or is open; several callers may wait for it."""

    def __init__(self) -> None:
        self.opened = trio.Event()  # or could not be
        self.error: Exception | None = None
        self.release = trio.Event()
        self.ended = trio.Event()


class Opener:
    """Opens layers in a nursery of its own, each in a task, and keeps them open until the end of :func:`on_demand`.

    A layer that fails later is logged and forgotten: its next use opens it again.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._kept: dict[AbstractAsyncContextManager[Any], _Kept] = {}
        # The tasks of a layer shall not keep what the request that came first has in its context.
        self._context = contextvars.copy_context()

    async def open(self, layer: AbstractAsyncContextManager[Any]) -> None:
        """Open it, or wait for another task that does.

        Raises:
            ChannelLayerUnavailable: it could not be opened. The next call tries again.

        Cancellation: ends the wait; the opening goes on.
        """
        kept = self._kept.get(layer)
        if kept is not None and kept.opened.is_set():  # and yet it is used as if not open: somebody has closed it
            kept.release.set()
            await kept.ended.wait()
            kept = self._kept.get(layer)
        if kept is None:
            kept = self._kept[layer] = _Kept()
            self._context.copy().run(self._nursery.start_soon, self._keep_open, layer, kept)
        await kept.opened.wait()
        if kept.error is not None:
            raise ChannelLayerUnavailable(str(kept.error)) from kept.error

    async def _keep_open(self, layer: AbstractAsyncContextManager[Any], kept: _Kept) -> None:
        try:
            async with layer:
                kept.opened.set()
                await kept.release.wait()
        except Exception as error:
            if kept.opened.is_set():
                logger.exception("%r has failed; its next use opens it again", layer)
            kept.error = error
        finally:
            del self._kept[layer]
            kept.opened.set()
            kept.ended.set()

    def close(self) -> None:
        """Close everything, soon."""
        for kept in self._kept.values():
            kept.release.set()
        self._nursery.cancel_scope.deadline = trio.current_time() + CLOSING_TIME


@asynccontextmanager
async def on_demand() -> AsyncIterator[None]:
    """Have this Trio run open channel layers on first use, for the length of the block.

    Cancellation: what is open is closed, as far as it can be without waiting.
    """
    async with trio.open_nursery() as nursery:
        opener = Opener(nursery)
        _opener_of_run.set(opener)
        try:
            yield
        finally:
            _opener_of_run.set(None)
            opener.close()


async def open_on_demand(layer: AbstractAsyncContextManager[Any]) -> None:
    """Open a layer that is used without being open, where the run does that.

    Raises:
        ChannelLayerUnavailable: it could not be opened, or the run does not open layers on demand.

    Cancellation: ends the wait; the opening goes on.
    """
    opener = _opener_of_run.get()
    if opener is None:
        raise not_open()
    await opener.open(layer)


def not_open() -> ChannelLayerUnavailable:
    """The error that says how a layer is opened."""
    return ChannelLayerUnavailable(
        "the channel layer is not open in this Trio run: serve through a ProtocolTypeRouter, which opens it at "
        "start-up, or write 'async with layer:' around its use"
    )
