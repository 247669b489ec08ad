"""The keys and metas of a group as readers see them, and the events that change them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: What a connection tells about the key that it tracks. As you read it, it has the reference of the tracking: ``ref``.
Meta = dict[str, Any]

#: The type of the events for watchers.
DIFF = "presence.diff"


class PresenceState(dict[str, list[Meta]]):
    """The keys that are in a group: a dict of key and metas, one meta for each tracking of the key.

    Each meta has the entry ``ref``: the reference of the tracking, a short text that no other tracking has. Tracking a
    key again with another meta gives it a new reference. The metas are shared with other readers: do not change them.
    """

    def __init__(self, keys: Mapping[str, Iterable[Meta]] | None = None, version: int = 0) -> None:
        super().__init__({key: list(metas) for key, metas in (keys or {}).items()})
        #: Rises with each change. An event with a version that is not higher is contained in this state.
        self.version = version

    def apply(self, diff: Mapping[str, Any]) -> bool:
        """Apply a ``presence.diff`` event, so that this is the state after it.

        Returns:
            False, without a change, if this state already contains the event.
        """
        if diff["version"] <= self.version:
            return False
        self.version = diff["version"]
        for key, metas in diff["leaves"].items():
            for meta in metas:
                self.remove(key, meta["ref"])
        for key, metas in diff["joins"].items():
            for meta in metas:
                self.remove(key, meta["ref"])
                self.add(key, meta)
        return True

    def add(self, key: str, meta: Meta) -> None:
        """Add a tracking."""
        self.setdefault(key, []).append(meta)

    def remove(self, key: str, ref: str) -> None:
        """Remove a tracking; does nothing where there is none."""
        metas = self.get(key)
        if metas is None:
            return
        metas[:] = [meta for meta in metas if meta["ref"] != ref]
        if not metas:
            del self[key]

    def difference(self, later: PresenceState, group: str) -> dict[str, Any]:
        """The event that makes `later` of this state."""
        return diff_event(
            group,
            joins=_missing(later, self),
            leaves=_missing(self, later),
            arrived=[key for key in later if key not in self],
            departed=[key for key in self if key not in later],
            version=later.version,
        )


def diff_event(
    group: str,
    *,
    joins: Mapping[str, list[Meta]],
    leaves: Mapping[str, list[Meta]],
    arrived: list[str],
    departed: list[str],
    version: int,
) -> dict[str, Any]:
    """A ``presence.diff`` event."""
    return {
        "type": DIFF,
        "group": group,
        "joins": joins,
        "leaves": leaves,
        "arrived": arrived,
        "departed": departed,
        "version": version,
    }


def _missing(some: PresenceState, others: PresenceState) -> dict[str, list[Meta]]:
    """The metas of `some` that `others` do not have."""
    found: dict[str, list[Meta]] = {}
    for key, metas in some.items():
        known = {meta["ref"] for meta in others.get(key, ())}
        if missing := [meta for meta in metas if meta["ref"] not in known]:
            found[key] = missing
    return found
