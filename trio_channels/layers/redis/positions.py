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
    check = blake2b(b"%b %b" % (token, group.encode()), digest_size=6).hexdigest()
    return f"{epoch.decode()}-{entry_id.decode()}-{check}"


def place_of(epoch: bytes, entry_id: bytes) -> Place:
    """The place of an entry, to be compared."""
    milliseconds, _, number = entry_id.partition(b"-")
    return epoch.decode(), int(milliseconds), int(number)


def mark(message: Message, group: str, kept: bytes, token: bytes) -> Place:
    """Stamp a message that came through an inbox with its position; `kept` is that of GROUP_KEEP."""
    epoch, entry_id = kept.split(b" ")
    stamp(message, group, format_position(epoch, entry_id, token, group))
    return place_of(epoch, entry_id)
