"""A view: all trackings of one group, kept up to date in one Trio run, and told to its watchers.

The rules:

- A change is told at once if the last one is longer than :data:`INTERVAL` ago; else together with others, then.
- A watcher gets the events behind its snapshot. So the snapshot with these events applied is always the view's state.
- A leave that is *held* is told after the grace. A tracking of the same key that comes before takes the place of the
  old one: with the same meta it keeps even its reference, and there is nothing to tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec
import trio

from ..mailbox import Mailbox
from ..message import Envelope
from .alarm import Alarm
from .state import Meta, PresenceState, diff_event

#: Least seconds between two events for the watchers of a view. If thousands come at the same time, each watcher gets a
#: few events, and not thousands.
INTERVAL = 0.1


class Change(msgspec.Struct):
    """Trackings that begin or end together. The references of those that end are in `leaves`, or in `held`."""

    joins: list[tuple[str, str, dict[str, Any]]] = []
    leaves: list[str] = []
    held: list[str] = []


class Watcher(NamedTuple):
    """A mailbox, and the version of the snapshot that it has."""

    mailbox: Mailbox
    since: int


@dataclass(slots=True)
class Entry:
    """One tracking. Its reference for readers is in the meta."""

    key: str
    meta: Meta
    is_told: bool


@dataclass(slots=True)
class _Untold:
    """What has changed since the last event: entries by their references for readers, and keys that were there."""

    joins: dict[str, Entry] = field(default_factory=dict)
    leaves: dict[str, Entry] = field(default_factory=dict)
    keys: dict[str, bool] = field(default_factory=dict)
    has_new_watcher: bool = False


class View:
    """One group's trackings."""

    def __init__(
        self, group: str, *, grace: float, expiry: float, alarm: Alarm, next_version: Callable[[], int]
    ) -> None:
        self.group = group
        self.entries: dict[str, Entry] = {}  # by the reference of the tracking
        self.watchers: dict[str, Watcher] = {}  # by the name of the mailbox
        self.claims = 0  # of those that are about to watch
        self.loaded = trio.Event()
        self._grace = grace
        self._expiry = expiry
        self._alarm = alarm
        self._next_version = next_version
        self._state = PresenceState(version=next_version())
        self._held: dict[str, dict[str, float]] = {}  # key -> reference -> when its leave is told
        self._taken: set[str] = set()  # references for readers that trackings have taken over
        self._untold = _Untold()
        self._tell_at = 0.0  # when the next event may be told
        self._is_due = False  # whether the alarm is set
        self._is_changed = False  # since the version was raised

    def __repr__(self) -> str:
        return f"<View of {self.group}, {len(self.entries)} trackings, {len(self.watchers)} watchers>"

    def snapshot(self) -> PresenceState:
        """The state now."""
        return PresenceState(self._state, self._state.version)

    def watch(self, mailbox: Mailbox) -> PresenceState:
        """Give a mailbox the events from now on, and return the state that they follow."""
        self._untold.has_new_watcher = True
        self.watchers[mailbox.name] = Watcher(mailbox, self._state.version)
        return self.snapshot()

    def apply(self, change: Change) -> None:
        """Note a change, and tell it. Trackings that are already there, or are not, change nothing."""
        for ref in change.leaves:
            self._remove(ref)
        for ref in change.held:
            self._hold(ref)
        for ref, key, meta in change.joins:
            self._add(ref, key, meta)
        if self._is_changed:
            self._is_changed = False
            self._state.version = self._next_version()
            self._tell_soon()

    def _add(self, ref: str, key: str, meta: Meta) -> None:
        if ref in self.entries or ref in self._taken:
            self._release(ref)
            return
        held = self._held.get(key)
        if held:
            same = next((other for other in held if _is_same(meta, self.entries[other].meta)), None)
            if same is not None:
                self._release(same)
                entry = self.entries[ref] = self.entries.pop(same)
                self._taken.add(entry.meta["ref"])
                return
            self._remove(next(iter(held)))
        self._touch(key)
        comes_back = self._untold.leaves.pop(ref, None) is not None
        entry = self.entries[ref] = Entry(key, {**meta, "ref": ref}, is_told=comes_back)
        self._state.add(key, entry.meta)
        self._untold.joins[ref] = entry

    def _remove(self, ref: str) -> None:
        self._release(ref)
        entry = self.entries.pop(ref, None)
        if entry is None:
            return
        self._touch(entry.key)
        shown = entry.meta["ref"]
        self._taken.discard(shown)
        self._state.remove(entry.key, shown)
        self._untold.joins.pop(shown, None)
        if entry.is_told or self._untold.has_new_watcher:  # whose snapshot may have it
            self._untold.leaves[shown] = entry

    def _hold(self, ref: str) -> None:
        entry = self.entries.get(ref)
        if entry is None or not self._grace:
            self._remove(ref)
            return
        until = trio.current_time() + self._grace
        self._held.setdefault(entry.key, {})[ref] = until
        self._alarm.at(until, partial(self._end_of_grace, ref, entry.key, until))

    def _release(self, ref: str) -> None:
        entry = self.entries.get(ref)
        held = self._held.get(entry.key) if entry is not None else None
        if entry is not None and held is not None and held.pop(ref, None) is not None and not held:
            del self._held[entry.key]

    def _end_of_grace(self, ref: str, key: str, until: float) -> None:
        if self._held.get(key, {}).get(ref) == until:
            self.apply(Change(leaves=[ref]))

    def _touch(self, key: str) -> None:
        self._is_changed = True
        self._untold.keys.setdefault(key, key in self._state)

    def _tell_soon(self) -> None:
        if trio.current_time() >= self._tell_at:
            self._tell()
        elif not self._is_due:
            self._is_due = True
            self._alarm.at(self._tell_at, self._tell)

    def _tell(self) -> None:
        self._is_due = False
        untold, self._untold = self._untold, _Untold()
        if not untold.joins and not untold.leaves:
            return  # all that came has gone again
        now = trio.current_time()
        self._tell_at = now + INTERVAL
        for entry in untold.joins.values():
            entry.is_told = True
        event = diff_event(
            self.group,
            joins=_by_key(untold.joins),
            leaves=_by_key(untold.leaves),
            arrived=[key for key, was_there in untold.keys.items() if not was_there and key in self._state],
            departed=[key for key, was_there in untold.keys.items() if was_there and key not in self._state],
            version=self._state.version,
        )
        envelope = Envelope(event, now + self._expiry)
        for watcher in self.watchers.values():
            if watcher.since < self._state.version:
                watcher.mailbox.put(envelope)


def _is_same(meta: Meta, shown: Meta) -> bool:
    return shown == {**meta, "ref": shown["ref"]}


def _by_key(entries: dict[str, Entry]) -> dict[str, list[Meta]]:
    metas: dict[str, list[Meta]] = {}
    for entry in entries.values():
        metas.setdefault(entry.key, []).append(entry.meta)
    return metas
