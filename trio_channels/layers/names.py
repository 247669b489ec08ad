"""The rules for channel and group names, as the channel layer specification of Channels gives them.

A name is 1 to 99 ASCII letters, digits, hyphens, underscores and periods. A channel name may hold one ``!``: what
stands before it names a process, what follows a channel inside it.
"""

from __future__ import annotations

import re

from ..exceptions import InvalidNameError

MAX_NAME_LENGTH = 99
_WORD = "[A-Za-z0-9_.-]"
_GROUP = re.compile(f"{_WORD}+")
_CHANNEL = re.compile(f"{_WORD}+(![A-Za-z0-9_.-]*)?")


def is_group_name(name: object) -> bool:
    """Whether `name` may name a group."""
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and _GROUP.fullmatch(name) is not None


def is_channel_name(name: object) -> bool:
    """Whether `name` may name a channel."""
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and _CHANNEL.fullmatch(name) is not None


def check_group_name(name: object) -> None:
    """Raise :class:`InvalidNameError` unless `name` may name a group."""
    if not is_group_name(name):
        raise InvalidNameError(_complaint("group", name))


def check_channel_name(name: object) -> None:
    """Raise :class:`InvalidNameError` unless `name` may name a channel."""
    if not is_channel_name(name):
        raise InvalidNameError(_complaint("channel", name))


def check_named_channel(name: object) -> None:
    """Raise :class:`InvalidNameError` unless `name` may name a channel that is not local to a process."""
    if not is_group_name(name):
        raise InvalidNameError(_complaint("named channel's", name))


def is_process_local(channel: str) -> bool:
    """Whether `channel` lives in one process (it holds a ``!``)."""
    return "!" in channel


def _complaint(kind: str, name: object) -> str:
    mark = ", with at most one '!' after the first character" if kind == "channel" else ""
    return (
        f"a {kind} name must be a str of 1 to {MAX_NAME_LENGTH} ASCII letters, digits, '-', '_' and '.'{mark}; "
        f"got {name!r}"
    )
