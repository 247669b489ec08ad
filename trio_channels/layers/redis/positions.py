"""Positions in the histories of a shard: the epoch, the id of an entry, and a check."""

from __future__ import annotations

import re
from hashlib import blake2b

from ..._asgi.protocol import Message
from ..history import stamp
from ..message import Place

POSITION = re.compile(r"([0-9a-f]{8})-([0-9]{1,15}-[0-9]{1,15})-([0-9a-f]{12})")


def format_position(epoch: bytes, entry_id: bytes, token: bytes, group: str) -> str:
    """The position of an entry."""
    return position_at(f"{epoch.decode()}-{entry_id.decode()}", token, group)


def position_at(kept: str, token: bytes, group: str) -> str:
    """The position of an entry; `kept` is its epoch and its id, as GROUP_KEEP answers."""
    return f"{kept}-{blake2b(b'%b %b' % (token, group.encode()), digest_size=6).hexdigest()}"


def place_of(epoch: bytes, entry_id: bytes) -> Place:
    """The place of an entry, to be compared."""
    milliseconds, _, number = entry_id.partition(b"-")
    return epoch.decode(), int(milliseconds), int(number)


def mark(message: Message, group: str, kept: str, token: bytes) -> Place:
    """Stamp a message that came through an inbox with its position; `kept` as for :func:`position_at`."""
    epoch, milliseconds, number = kept.split("-")
    place = epoch, int(milliseconds), int(number)
    stamp(message, group, position_at(kept, token, group))
    return place
