"""Opening channel layers on first use, in the background Trio run of :mod:`trio_channels.sync`.

In every other run the lifespan or an ``async with`` block opens a layer, and so gives its tasks their nursery.
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

#: Seconds in which all layers opened here must close, at the end of the process.
CLOSING_TIME = 2.0

_opener_of_run: trio.lowlevel.RunVar[Opener | None] = trio.lowlevel.RunVar("trio_channels opener", None)


class _OpenLayer:
    """The state of one layer that is being opened, or is open; several callers may wait for it."""

    def __init__(self) -> None:
        self.opened = trio.Event()  # also set when opening has failed: then `error` is set
        self.error: Exception | None = None
        self.release = trio.Event()
        self.ended = trio.Event()


class Opener:
    """Opens each layer in a task of its own; a layer that fails later is logged, and its next use opens it again."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._layers: dict[AbstractAsyncContextManager[Any], _OpenLayer] = {}
        # A layer's tasks must not keep the context variables of the caller that happened to come first.
        self._context = contextvars.copy_context()

    async def open(self, layer: AbstractAsyncContextManager[Any]) -> None:
        """Open a layer, or wait for another task that is opening it. A cancelled call ends the wait only."""
        state = self._layers.get(layer)
        if state is not None and state.opened.is_set():  # the caller found it closed: its close() has been called
            state.release.set()
            await state.ended.wait()
            state = self._layers.get(layer)
        if state is None:
            state = self._layers[layer] = _OpenLayer()
            self._context.copy().run(self._nursery.start_soon, self._keep_open, layer, state)
        await state.opened.wait()
        if state.error is not None:
            raise ChannelLayerUnavailable(str(state.error)) from state.error

    async def _keep_open(self, layer: AbstractAsyncContextManager[Any], state: _OpenLayer) -> None:
        try:
            async with layer:
                state.opened.set()
                await state.release.wait()
        except Exception as error:
            if state.opened.is_set():
                logger.exception("%r has failed; its next use opens it again", layer)
            state.error = error
        finally:
            del self._layers[layer]
            state.opened.set()
            state.ended.set()

    def close(self) -> None:
        """Tell all layers to close, and cancel those that take longer than :data:`CLOSING_TIME`."""
        for state in self._layers.values():
            state.release.set()
        self._nursery.cancel_scope.deadline = trio.current_time() + CLOSING_TIME


@asynccontextmanager
async def on_demand() -> AsyncIterator[None]:
    """Have this Trio run open channel layers on first use, for the length of the block."""
    async with trio.open_nursery() as nursery:
        opener = Opener(nursery)
        _opener_of_run.set(opener)
        try:
            yield
        finally:
            _opener_of_run.set(None)
            opener.close()


async def open_on_demand(layer: AbstractAsyncContextManager[Any]) -> None:
    """Open a layer that is used without being open, if the run opens layers on demand."""
    opener = _opener_of_run.get()
    if opener is None:
        raise not_open()
    await opener.open(layer)


def not_open() -> ChannelLayerUnavailable:
    """The error for a layer that is used without being open."""
    return ChannelLayerUnavailable(
        "the channel layer is not open in this Trio run: serve through a ProtocolTypeRouter, which opens it at "
        "start-up, or write 'async with layer:' around its use"
    )
