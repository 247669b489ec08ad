"""The trackings and views of one Trio run.

The rules:

- The table is the truth about the trackings of its own run. All copies of them elsewhere follow it.
- The trackings and watches of a mailbox end with the mailbox: see :meth:`Owner.end`.
- A view lives as long as somebody watches it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
import trio

from ..._limits import Rule
from ...exceptions import MessageNotEncodable, MessageTooLarge, TooManyTrackedKeys
from ..hub import Hub
from ..mailbox import Mailbox
from ..message import encode, round_trip
from ..names import is_public
from .alarm import Alarm
from .options import PresenceLimits
from .state import Meta, PresenceState
from .view import Change, View

_KEY = Rule("a non-empty str, such as str(user.pk)", lambda value: isinstance(value, str) and value != "")
_META = Rule("a dict or None", lambda value: value is None or isinstance(value, dict))


class Tracking(NamedTuple):
    """One key of one mailbox in a group."""

    group: str
    key: str
    ref: str
    meta: Meta


class Found(msgspec.Struct, frozen=True):
    """A key and a meta, as another run or process tells them."""

    key: str
    meta: Meta


class Backend(Protocol):
    """Carries changes to the other Trio runs and processes, and theirs to the views."""

    def as_read(self, meta: Meta) -> Meta:
        """A meta as others read it."""

    def changed(self, group: str, change: Change) -> None:
        """Carry on a change of this table's trackings."""

    async def settle(self, group: str, ref: str) -> None:
        """Wait until the others know of a tracking. Cancellation: it stands, and they get to know it."""

    def opened(self, view: View) -> None:
        """Begin to keep a view up to date."""

    def closed(self, view: View) -> None:
        """End it."""

    async def load(self, view: View) -> None:
        """Wait until a view is up to date. Cancellation: nothing changes."""

    async def read(self, group: str) -> Mapping[str, Found]:
        """The trackings of others, by reference. Cancellation: nothing changes."""


@dataclass(slots=True)
class Owner:
    """The trackings and watches of one mailbox."""

    table: PresenceTable
    mailbox: Mailbox
    tracked: dict[tuple[str, str], Tracking]  # by group and key
    watched: dict[str, None]

    def end(self) -> None:
        """End them all, because the mailbox has ended. The leaves are held back, if the layer has a grace."""
        for group in list(self.watched):
            self.table.unwatch(self.mailbox, group)
        ending: dict[str, Change] = {}
        for tracking in self.tracked.values():
            ending.setdefault(tracking.group, Change()).held.append(tracking.ref)
        self.tracked.clear()
        for group, change in ending.items():
            self.table.end(group, change)


class PresenceTable:
    """See the module."""

    def __init__(self, *, hub: Hub, process: str, limits: PresenceLimits, expiry: float, backend: Backend) -> None:
        self.tracked: dict[str, dict[str, Tracking]] = {}  # group -> reference -> tracking; only groups with some
        self.views: dict[str, View] = {}
        self.process = process
        self._hub = hub
        self._limits = limits
        self._expiry = expiry
        self._backend = backend
        self._alarm = Alarm()
        self._refs = itertools.count(1)
        self._versions = itertools.count(1)

    def __repr__(self) -> str:
        return f"<PresenceTable of {self.process}, {self.count()} trackings, {len(self.views)} views>"

    def count(self) -> int:
        """The number of trackings, without those of the package itself. May be called in any thread."""
        return sum(len(trackings) for group, trackings in list(self.tracked.items()) if is_public(group))

    async def track(self, mailbox: Mailbox, group: str, key: str, meta: Meta | None) -> None:
        """Track a key for a mailbox, or give it a new meta. Cancellation: the tracking stands."""
        meta = self._checked(key, meta)
        if not self._is_open(mailbox):
            await trio.lowlevel.checkpoint()
            return
        owner = self._owner(mailbox)
        before = owner.tracked.get((group, key))
        if before is not None and before.meta == meta:
            await self._backend.settle(group, before.ref)
            return
        if before is None and len(owner.tracked) >= self._limits.keys:
            raise TooManyTrackedKeys(
                f"a connection tracks at most {self._limits.keys} keys: untrack some, or raise 'keys' in the layer's "
                f"option 'presence'"
            )
        ref = f"{self.process}.{next(self._refs)}"
        tracking = owner.tracked[group, key] = Tracking(group, key, ref, meta)
        change = Change(joins=[(ref, key, meta)])
        if before is not None:
            del self.tracked[group][before.ref]
            change.leaves.append(before.ref)
        self.tracked.setdefault(group, {})[ref] = tracking
        self._carry_on(group, change)
        await self._backend.settle(group, ref)

    def untrack(self, mailbox: Mailbox, group: str, key: str) -> None:
        """End a tracking at once; does nothing where there is none."""
        tracking = self._owner(mailbox).tracked.pop((group, key), None)
        if tracking is not None:
            self.end(group, Change(leaves=[tracking.ref]))

    def end(self, group: str, change: Change) -> None:
        """End trackings that no mailbox has any more."""
        trackings = self.tracked.get(group, {})
        for ref in (*change.leaves, *change.held):
            trackings.pop(ref, None)
        if not trackings:
            self.tracked.pop(group, None)
        self._carry_on(group, change)

    def _carry_on(self, group: str, change: Change) -> None:
        self.apply(group, change)
        self._backend.changed(group, change)

    def apply(self, group: str, change: Change) -> None:
        """Note a change in the view of the group, if there is one."""
        view = self.views.get(group)
        if view is not None:
            view.apply(change)

    async def watch(self, mailbox: Mailbox, group: str) -> PresenceState:
        """Give a mailbox the events of a group, and return the state that they follow. Cancellation: it gets none."""
        view = self.views.get(group) or self._open(group)
        view.claims += 1
        try:
            await self._backend.load(view)
            if not self._is_open(mailbox):
                return view.snapshot()
            self._owner(mailbox).watched[group] = None
            return view.watch(mailbox)
        finally:
            view.claims -= 1
            self._close_unused(view)

    def unwatch(self, mailbox: Mailbox, group: str) -> None:
        """Give a mailbox no further events of a group."""
        owner = self._owner(mailbox)
        if group in owner.watched:
            del owner.watched[group]
            view = self.views[group]
            del view.watchers[mailbox.name]
            self._close_unused(view)

    async def read(self, group: str) -> PresenceState:
        """The trackings of a group now. Cancellation: nothing changes."""
        view = self.views.get(group)
        if view is not None and view.loaded.is_set():
            await trio.lowlevel.checkpoint()
            return view.snapshot()
        found = await self._backend.read(group)
        state = PresenceState(version=next(self._versions))
        for tracking in self.tracked.get(group, {}).values():
            state.add(tracking.key, {**tracking.meta, "ref": tracking.ref})
        for ref, other in found.items():
            state.add(other.key, {**other.meta, "ref": ref})
        return state

    def _open(self, group: str) -> View:
        view = self.views[group] = View(
            group,
            grace=self._limits.grace,
            expiry=self._expiry,
            alarm=self._alarm,
            next_version=lambda: next(self._versions),
        )
        view.apply(Change(joins=[(own.ref, own.key, own.meta) for own in self.tracked.get(group, {}).values()]))
        self._backend.opened(view)
        return view

    def _close_unused(self, view: View) -> None:
        if not view.claims and not view.watchers:
            del self.views[view.group]
            self._backend.closed(view)

    def _is_open(self, mailbox: Mailbox) -> bool:
        return self._hub.mailboxes.get(mailbox.name) is mailbox

    def _owner(self, mailbox: Mailbox) -> Owner:
        owner: Owner | None = mailbox.presence
        if owner is None:
            owner = mailbox.presence = Owner(self, mailbox, {}, {})
        return owner

    def _checked(self, key: str, meta: Meta | None) -> Meta:
        if not _KEY.holds(key):
            raise MessageNotEncodable(f"a tracked key must be {_KEY.expected}; got {key!r}")
        if not _META.holds(meta):
            raise MessageNotEncodable(f"the meta of a tracked key must be {_META.expected}; got {type(meta).__name__}")
        if meta is not None and "ref" in meta:
            raise MessageNotEncodable("the meta of a tracked key must not have 'ref': the layer adds it; rename yours")
        encode(meta or {})  # refuses entries that are no str
        content = {"type": "a tracked key", "key": key, "meta": meta or {}}
        size = len(encode(content))
        if size > self._limits.meta_size:
            raise MessageTooLarge(
                f"a tracked key and its meta have at most {self._limits.meta_size:,} bytes; got {size:,}. Put less "
                f"into the meta, or raise 'meta_size' in the layer's option 'presence'"
            )
        return self._backend.as_read(round_trip(content)["meta"])
