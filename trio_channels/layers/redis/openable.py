"""How the layer is opened and closed: in each Trio run that uses it separately, for the length of a block."""

from __future__ import annotations

import abc
from typing import Any, Self, Unpack

import trio

from ...exceptions import InvalidChannelLayerError
from ..base import LayerOptions
from ..hub import Hub
from ..local import LocalDelivery
from ..on_demand import not_open, open_on_demand
from .session import OpenLayer


class Openable(LocalDelivery):
    """The half of the layer that knows in which Trio runs it is open."""

    def __init__(self, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self._open: dict[trio.lowlevel.TrioToken, OpenLayer] = {}
        # An entry stays until its block is left: close() may be called inside it, but the nursery is the block's.
        self._nurseries: dict[trio.lowlevel.TrioToken, OpenLayer] = {}

    @abc.abstractmethod
    def _new(self) -> OpenLayer:
        """What is to be opened in a Trio run."""

    async def __aenter__(self) -> Self:
        """Open the layer in this Trio run.

        Raises:
            ChannelLayerUnavailable: Redis could not be reached within the time limit.
            InvalidChannelLayerError: it is open in this run already.

        Cancellation: leaves nothing open.
        """
        token = trio.lowlevel.current_trio_token()
        if token in self._nurseries:
            raise InvalidChannelLayerError("the channel layer is open in this Trio run already")
        opened = self._open[token] = self._nurseries[token] = self._new()
        self._hubs[token] = opened.hub
        try:
            await opened.start()
        except BaseException:
            self._forget(token)
            del self._nurseries[token]
            raise
        return self

    async def __aexit__(self, *exc: Any) -> None:
        opened = self._nurseries.pop(trio.lowlevel.current_trio_token())
        try:
            await self.close()
        finally:
            await opened.leave_nursery(*exc)

    async def close(self) -> None:
        """Leave Redis, and stop the layer's tasks in this Trio run. Leaving the ``async with`` block does it too.

        Cancellation: what is left in Redis goes with its lease, after 30 seconds.
        """
        token = trio.lowlevel.current_trio_token()
        opened = self._open.get(token)
        if opened is not None:
            try:
                await opened.stop()
            finally:
                opened.hub.close_ownerless()
                self._forget(token)

    def _forget(self, token: trio.lowlevel.TrioToken) -> None:
        self._open.pop(token, None)
        self._hubs.pop(token, None)

    def _opened(self) -> OpenLayer:
        opened = self._open.get(trio.lowlevel.current_trio_token())
        if opened is None:
            raise not_open()
        return opened

    async def _ready(self) -> OpenLayer:
        """What is open in this Trio run, and not broken; see :meth:`_open_or_broken`."""
        opened = await self._open_or_broken()
        opened.check()
        return opened

    async def _open_or_broken(self) -> OpenLayer:
        """What is open in this Trio run; in the background run of ``async_to_sync``, opened if need be."""
        opened = self._open.get(trio.lowlevel.current_trio_token())
        if opened is None:
            await open_on_demand(self)
            opened = self._opened()
        return opened

    def _hub(self) -> Hub:
        opened = self._opened()
        opened.check()
        return opened.hub

    def _healthy(self) -> bool:
        return all(opened.problem is None for opened in list(self._open.values()))

    def _process_mark(self) -> str:
        return f".{self._opened().process}"
