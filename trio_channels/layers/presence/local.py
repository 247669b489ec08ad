"""The methods of presence on top of a table; the base of every layer that has presence."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Self

import trio

from ..._limits import Overflow
from ...exceptions import ChannelLayerUnavailable
from .. import names
from ..mailbox import Mailbox
from ..message import Gap
from .interface import PresenceMethods
from .state import Meta, PresenceState
from .table import PresenceTable


class LocalPresence(PresenceMethods, abc.ABC):
    """See :class:`PresenceMethods`."""

    @abc.abstractmethod
    async def _presence(self) -> tuple[PresenceTable, dict[str, Mailbox]]:
        """The table and the mailboxes of this Trio run. Cancellation: nothing changes."""

    @abc.abstractmethod
    def open_mailbox(
        self, *, overflow: Overflow | None = None, prefix: str = "specific"
    ) -> AbstractContextManager[Mailbox]:
        """See :meth:`ChannelLayer.open_mailbox`."""

    @asynccontextmanager
    async def track(self, group: str, key: str, meta: Meta | None = None) -> AsyncIterator[_Tracked]:
        """See :meth:`PresenceMethods.track`. Cancellation: the tracking ends."""
        names.check_group_name(group)
        table, _ = await self._presence()
        with self.open_mailbox(prefix="tracker") as mailbox:
            tracked = _Tracked(table, mailbox, group, key)
            await tracked.update(meta)
            yield tracked

    async def track_channel(self, group: str, channel: str, key: str, meta: Meta | None = None) -> None:
        """See :meth:`PresenceMethods.track_channel`. Cancellation: the tracking stands."""
        table, mailbox = await self._table_and_mailbox(group, channel)
        if mailbox is not None:
            await table.track(mailbox, group, key, meta)

    async def untrack_channel(self, group: str, channel: str, key: str) -> None:
        """See :meth:`PresenceMethods.untrack_channel`. Cancellation: atomic."""
        table, mailbox = await self._table_and_mailbox(group, channel)
        if mailbox is not None:
            table.untrack(mailbox, group, key)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def presence(self, group: str) -> PresenceState:
        """See :meth:`PresenceMethods.presence`. Cancellation: nothing changes."""
        names.check_group_name(group)
        table, _ = await self._presence()
        return await table.read(group)

    async def watch_presence(self, group: str, channel: str) -> PresenceState:
        """See :meth:`PresenceMethods.watch_presence`. Cancellation: the connection gets no events."""
        table, mailbox = await self._table_and_mailbox(group, channel)
        return await (table.read(group) if mailbox is None else table.watch(mailbox, group))

    async def unwatch_presence(self, group: str, channel: str) -> None:
        """See :meth:`PresenceMethods.unwatch_presence`. Cancellation: atomic."""
        table, mailbox = await self._table_and_mailbox(group, channel)
        if mailbox is not None:
            table.unwatch(mailbox, group)
        await trio.lowlevel.cancel_shielded_checkpoint()

    @asynccontextmanager
    async def subscribe_presence(self, group: str) -> AsyncIterator[_Events]:
        """See :meth:`PresenceMethods.subscribe_presence`. Cancellation: a cancelled iteration loses no change."""
        names.check_group_name(group)
        table, _ = await self._presence()
        with self.open_mailbox(prefix="watcher", overflow="drop_newest") as mailbox:
            yield _Events(table, mailbox, group, await table.watch(mailbox, group))

    async def _table_and_mailbox(self, group: str, channel: str) -> tuple[PresenceTable, Mailbox | None]:
        names.check_group_name(group)
        names.check_channel_name(channel)
        table, mailboxes = await self._presence()
        await trio.lowlevel.checkpoint_if_cancelled()
        return table, mailboxes.get(channel)


class _Tracked:
    """See :class:`~trio_channels.layers.presence.interface.Tracked`."""

    def __init__(self, table: PresenceTable, mailbox: Mailbox, group: str, key: str) -> None:
        self._table = table
        self._mailbox = mailbox
        self._group = group
        self._key = key

    def __repr__(self) -> str:
        return f"<the key {self._key!r} in {self._group}>"

    async def update(self, meta: Meta | None) -> None:
        """Give the key another meta. Cancellation: the meta stands."""
        await self._table.track(self._mailbox, self._group, self._key, meta)


class _Events:
    """See :class:`~trio_channels.layers.presence.interface.PresenceEvents`."""

    def __init__(self, table: PresenceTable, mailbox: Mailbox, group: str, state: PresenceState) -> None:
        self.state = state
        self._is_behind = False  # whether a gap came
        self._table = table
        self._mailbox = mailbox
        self._group = group
        mailbox.end = _end

    def __repr__(self) -> str:
        return f"<the presence of {self._group}, {len(self.state)} keys>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while True:
            if self._is_behind:
                later = await self._table.watch(self._mailbox, self._group)
                diff = self.state.difference(later, self._group)
                self.state, self._is_behind = later, False
                if diff["joins"] or diff["leaves"]:
                    return diff
            item = await self._mailbox.get()
            if isinstance(item, Gap):
                self._is_behind = True
            elif self.state.apply(item):
                return item


def _end(failure: str | None) -> Exception:
    if failure is None:
        return StopAsyncIteration()
    return ChannelLayerUnavailable(f"the channel layer is broken: {failure}")
