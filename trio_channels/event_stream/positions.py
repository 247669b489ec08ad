"""The id of an event: the position in a group's history, or those in several groups' histories.

With one group the id is the position itself. With several it is ``key.position,key.position``; a key is a hash of
the group's name. A client may hand back anything: a position that is not good is not recovered, see
:mod:`trio_channels.layers.history`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

#: What a position may be to be part of an id.
_POSITION = re.compile(r"[!-+\--~]+")  # visible ASCII without the comma


class Positions:
    """The newest position that a client has in each of its groups.

    Args:
        groups: the groups of the stream.
        event_id: the last event id of the client, if it has one.

    Attributes:
        given: the positions in that id.
    """

    def __init__(self, groups: Iterable[str], event_id: str | None) -> None:
        self._keys = {group: _key(group) for group in groups}
        self._newest: dict[str, str] = {}
        self.given = {} if event_id is None else self._read(event_id)

    def _read(self, event_id: str) -> dict[str, str]:
        if len(self._keys) == 1:
            return dict.fromkeys(self._keys, event_id)
        pairs = (pair.partition(".") for pair in event_id.split(","))
        by_key = {key: position for key, _, position in pairs}
        return {group: by_key.get(key, "") for group, key in self._keys.items()}

    def move(self, group: str, position: str | None) -> None:
        """Note the position of a message, or where a membership begins."""
        if position is not None and _POSITION.fullmatch(position):
            self._newest[group] = position

    @property
    def event_id(self) -> str | None:
        """The id of the next event; None if no group has a history."""
        if not self._newest:
            return None
        if len(self._keys) == 1:
            return next(iter(self._newest.values()))
        return ",".join(f"{self._keys[group]}.{position}" for group, position in self._newest.items())


def _key(group: str) -> str:
    return blake2b(group.encode(), digest_size=4).hexdigest()
