"""Recognises messages that are sent again by somebody who cannot know whether the first attempt arrived."""

from __future__ import annotations

#: Identities remembered: more than a process receives while a dead relay's messages wait for another relay. Of 16 bytes
#: each; together less than 10 MB.
REMEMBERED = 65_536


class Identities:
    """The latest identities of messages; may be used from several threads."""

    # A dict keeps the order of its keys, and each of its operations here is one step for other threads.
    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._seen: dict[bytes, None] = {}
        self._remembered = remembered

    def __repr__(self) -> str:
        return f"<Identities of {len(self._seen)} messages>"

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._seen

    def add(self, identity: bytes) -> None:
        """Remember an identity, and forget the oldest one if they are too many."""
        self._seen[identity] = None
        if len(self._seen) > self._remembered:
            self._seen.pop(next(iter(self._seen)), None)
