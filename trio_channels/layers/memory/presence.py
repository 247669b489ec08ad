"""Presence in memory: each Trio run tells its changes to the tables of the others."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import trio

from ..hub import Hub
from ..presence.options import PresenceLimits
from ..presence.state import Meta
from ..presence.table import Found, PresenceTable
from ..presence.view import Change, View


class MemoryPresence:
    """The other Trio runs of the process; see :class:`~trio_channels.layers.presence.table.Backend`."""

    def __init__(
        self, hub: Hub, hubs: Callable[[], list[Hub]], in_run_of: Callable[[Hub, Callable[[], object]], bool]
    ) -> None:
        self._hub = hub
        self._hubs = hubs
        self._in_run_of = in_run_of

    def __repr__(self) -> str:
        return f"<MemoryPresence of {self._hub!r}>"

    def table(self, limits: PresenceLimits, expiry: float) -> PresenceTable:
        """The table of this run."""
        return PresenceTable(hub=self._hub, process=secrets.token_hex(4), limits=limits, expiry=expiry, backend=self)

    def as_read(self, meta: Meta) -> Meta:
        """See Backend."""
        return meta

    def changed(self, group: str, change: Change) -> None:
        """See Backend."""
        for hub, table in self._others():
            self._in_run_of(hub, partial(table.apply, group, change))

    async def settle(self, group: str, ref: str) -> None:
        """See Backend. Cancellation: there is nothing to wait for."""
        await trio.lowlevel.cancel_shielded_checkpoint()

    def opened(self, view: View) -> None:
        """See Backend. The view is in the table before the others' tables are read: a later change reaches it."""
        joins = [(ref, found.key, found.meta) for ref, found in self._found(view.group).items()]
        view.apply(Change(joins=joins))
        view.loaded.set()

    def closed(self, view: View) -> None:
        """See Backend."""

    async def load(self, view: View) -> None:
        """See Backend. Cancellation: nothing changes."""
        await trio.lowlevel.checkpoint()

    async def read(self, group: str) -> Mapping[str, Found]:
        """See Backend. Cancellation: nothing changes."""
        await trio.lowlevel.checkpoint()
        return self._found(group)

    def _found(self, group: str) -> dict[str, Found]:
        return {
            tracking.ref: Found(tracking.key, tracking.meta)
            for hub, table in self._others()
            if self._in_run_of(hub, _nothing)  # whether the run goes on
            for tracking in list(table.tracked.get(group, {}).values())
        }

    def _others(self) -> Iterator[tuple[Hub, PresenceTable]]:
        return ((hub, hub.presence) for hub in self._hubs() if hub is not self._hub and hub.presence is not None)


def _nothing() -> None:
    """Called in a run to learn whether it goes on."""
