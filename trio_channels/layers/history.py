"""History: which groups keep their latest messages, and the results of joining a group and of reading its history.

A message of a group with history has a *position*: a short str, opaque to its users, that names the message and the
history that it is in. A position that the layer cannot continue from is *not recovered*. That is no error: a client may
hand back anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from .._asgi.protocol import Message
from .._limits import COUNT, SECONDS, Rule, suggestion
from ..exceptions import InvalidChannelLayerError, MessageNotEncodable
from .patterns import Patterns, require

#: The key of a message under which its receiver finds its group and position; see :func:`stamp`.
KEY = "history"
#: The reason of the :class:`~trio_channels.layers.base.Gap` of a member whose position was not recovered.
NOT_RECOVERED = "not recovered"
#: Most characters of a position. A longer one is not looked at.
LONGEST_POSITION = 200
#: Most groups whose patterns are remembered.
REMEMBERED_GROUPS = 10_000


class HistoryOptions(TypedDict):
    """What the option ``history`` gives for a pattern: the number of messages kept, and for how many seconds."""

    messages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HistoryRule:
    """How much of a group's history is kept."""

    messages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """The result of joining a group.

    Args:
        recovered: whether the member gets everything that was sent after its position. False without a position: then
            the member reads the state elsewhere.
        position: where the membership begins: all messages behind it arrive, and none before it. It is the given one
            if that was recovered. A client may keep it at once. None if the group has no history, or the channel was a
            member before.
        missed: the number of missed messages, which come before the live ones.
    """

    recovered: bool
    position: str | None
    missed: int = 0


#: The result of joining a group without history.
NO_HISTORY = Recovery(recovered=False, position=None)


@dataclass(frozen=True, slots=True)
class History:
    """Messages that a group has kept.

    Args:
        messages: in order, each as a member gets it.
        recovered: whether nothing is missing between the given position and the first message. False without one.
        position: that of the last message, or of the group's newest one if there is none to return. To read on, give it
            as ``since``. None if the group has no history.
    """

    messages: tuple[Message, ...]
    recovered: bool
    position: str | None


def stamp(message: Message, group: str, position: str) -> None:
    """Add the position to a message on its way to members."""
    message[KEY] = {"group": group, "position": position}


def check_unstamped(group: str, message: Message) -> None:
    """Refuse a message to a group with history that uses the key of the position."""
    if KEY in message:
        raise MessageNotEncodable(
            f"the key {KEY!r} of a message to the group {group!r} is the layer's, which puts the message's position "
            f"there, as the group has history; give your value another key"
        )


def check_limit(limit: object) -> None:
    """Refuse an argument ``limit`` of :meth:`ChannelLayer.history` that is no number of messages."""
    if limit is not None:
        COUNT.require("the argument limit of history()", limit, InvalidChannelLayerError)


def may_be_position(since: object) -> bool:
    """Whether a value may be a position: what else a client sends is not looked at."""
    return isinstance(since, str) and 0 < len(since) <= LONGEST_POSITION and since.isascii()


def position_of(since: str | Mapping[str, str | None] | None, groups: tuple[str, ...]) -> Mapping[str, str | None]:
    """The position for each group that ``subscribe`` joins; raises InvalidChannelLayerError if that is not clear."""
    if since is None:
        return {}
    if isinstance(since, Mapping):  # a position for another group is of no use, and may come from a client
        return since
    if len(groups) != 1:
        raise InvalidChannelLayerError(
            f"subscribe() of {len(groups)} groups expects since={{group: position}}; got a single position"
        )
    return {groups[0]: since}


def no_history(layer: object) -> InvalidChannelLayerError:
    """The error for a layer that has no history."""
    return InvalidChannelLayerError(
        f"{type(layer).__name__} keeps no history: 'history' is not in its extensions. Remove the option history and "
        f"the argument since, or use trio_channels.layers.redis.RedisStreamsChannelLayer"
    )


_HISTORY = Rule(
    "a dict such as {'messages': 200, 'seconds': 3600}",
    lambda value: isinstance(value, Mapping),
)
#: A database counts in milliseconds.
_FINITE = Rule("a finite number of seconds above 0", lambda value: SECONDS.holds(value) and value < float("inf"))


class HistoryRules:
    """The rule of each group, from the option ``history``.

    Args:
        given: the option: glob or compiled expression -> :class:`HistoryOptions`.

    Raises:
        InvalidChannelLayerError: a pattern or a value is wrong.
    """

    def __init__(self, given: Mapping[str | re.Pattern[str], HistoryOptions] | None) -> None:
        self._patterns = Patterns("history", given, _to_rule)
        self._known: dict[str, HistoryRule | None] = {}

    def __repr__(self) -> str:
        return f"<HistoryRules {self._patterns!r}>"

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def of(self, group: str) -> HistoryRule | None:
        """The rule of a group; None if it has no history."""
        if not self._patterns:
            return None
        try:
            return self._known[group]
        except KeyError:
            if len(self._known) >= REMEMBERED_GROUPS:
                self._known.clear()
            rule = self._known[group] = self._patterns.find(group)
            return rule


def _to_rule(name: str, value: Any) -> HistoryRule:
    """Check a value of the option ``history``."""
    require(_HISTORY, name, value)
    known = tuple(HistoryOptions.__annotations__)
    for key in value:
        if key not in known:
            raise InvalidChannelLayerError(f"{name} of a channel layer has no key {key!r}{suggestion(key, known)}")
    for key in known:
        if key not in value:
            raise InvalidChannelLayerError(
                f"{name} of a channel layer needs the key {key!r}, as in {_HISTORY.expected}"
            )
    require(COUNT, f"{name}['messages']", value["messages"])
    require(_FINITE, f"{name}['seconds']", value["seconds"])
    return HistoryRule(value["messages"], float(value["seconds"]))
