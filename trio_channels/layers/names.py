"""The rules for channel and group names, as the channel layer specification of Channels gives them.

A name is 1 to 99 ASCII letters, digits, hyphens, underscores and periods. A channel name may hold one ``!``: the part
before it names a process, the part after it a channel inside that process.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from ..exceptions import ForeignChannel, InvalidNameError

MAX_NAME_LENGTH = 99
_WORD = "[A-Za-z0-9_.-]"
_GROUP = re.compile(f"{_WORD}+")
_CHANNEL = re.compile(f"{_WORD}+(![A-Za-z0-9_.-]*)?")


_NOBODY: frozenset[str] = frozenset()


def is_group_name(name: object) -> bool:
    """Whether `name` is a valid group name."""
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and _GROUP.fullmatch(name) is not None


def is_channel_name(name: object) -> bool:
    """Whether `name` is a valid channel name."""
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and _CHANNEL.fullmatch(name) is not None


def check_group_name(name: object) -> None:
    """Raise :class:`InvalidNameError` unless `name` is a valid group name."""
    if not is_group_name(name):
        raise _invalid_name("group", name)


def check_channel_name(name: object) -> None:
    """Raise :class:`InvalidNameError` unless `name` is a valid channel name."""
    if not is_channel_name(name):
        raise _invalid_name("channel", name)


def check_named_channel(name: object) -> None:
    """Raise :class:`InvalidNameError` unless `name` is a valid channel name that is not process-local."""
    if not is_group_name(name):
        raise _invalid_name("named channel's", name)


def check_excluded(exclude: str | Iterable[str]) -> frozenset[str]:
    """One channel name or several as a set. Raises :class:`InvalidNameError` unless all are valid."""
    if not exclude:
        return _NOBODY
    names = frozenset((exclude,) if isinstance(exclude, str) else exclude)
    for name in names:
        check_channel_name(name)
    return names


#: The group of all processes, which hear in it which connections they must close.
ORDERS = "trio_channels.orders"


def is_public(group: str) -> bool:
    """Whether a group is a user's, and not :data:`ORDERS` or one of :func:`presence_group`."""
    return ":" not in group and group != ORDERS


def presence_group(group: str) -> str:
    """The group of the processes that keep a view of a group's presence. No user's group can have this name."""
    return f"{group}:presence"


def is_process_local(channel: str) -> bool:
    """Whether `channel` exists in one process only (it holds a ``!``)."""
    return "!" in channel


def new_reply_channel_name(prefix: str, process: str, mark: str) -> str:
    """A new process-local channel name that also names the hub that made it, by its mark."""
    name = new_channel_name(prefix, process)
    place = name.index("!") + 1
    # "r" is no hexadecimal digit: other names have no mark. As many characters as before.
    return f"{name[:place]}r{mark}.{name[place + len(mark) + 2 :]}"


def reply_mark(channel: str) -> str:
    """The mark of the hub that made a channel of ``new_channel``; "" for other channels."""
    tail = channel.partition("!")[2]
    return tail[1:].partition(".")[0] if tail.startswith("r") else ""


def process_of(channel: str) -> str:
    """The name of the process in the name of a process-local channel; see :func:`new_channel_name`."""
    return channel.partition("!")[0].rpartition(".")[2]


def foreign(channel: str) -> ForeignChannel:
    """The error of a task that would wait for messages of somebody else's channel."""
    return ForeignChannel(
        f"expected a channel of this process and Trio run; got {channel!r}, whose messages go to another one. Receive "
        f"where new_channel() made it, or send it a message"
    )


def new_channel_name(prefix: str, process: str = "") -> str:
    """A new process-local channel name: the prefix, the name of this process, ``!`` and 96 random bits."""
    tail = f"{process}!{secrets.token_hex(12)}"
    if not is_group_name(prefix) or not is_channel_name(prefix + tail):
        raise InvalidNameError(
            f"a channel prefix must be a str of ASCII letters, digits, '-', '_' and '.', at most "
            f"{MAX_NAME_LENGTH - len(tail)} of them; got {prefix!r}"
        )
    return prefix + tail


def _invalid_name(kind: str, name: object) -> InvalidNameError:
    mark = ", with at most one '!' after the first character" if kind == "channel" else ""
    return InvalidNameError(
        f"a {kind} name must be a str of 1 to {MAX_NAME_LENGTH} ASCII letters, digits, '-', '_' and '.'{mark}; "
        f"got {name!r}"
    )
