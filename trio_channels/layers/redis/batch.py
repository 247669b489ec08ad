"""Batches: calls that are sent in one write, and the distribution of the replies among them.

Several commands are sent as a transaction (``MULTI``). A server that is loading, is a replica, or has lost a script or
a slot then refuses all of them or none. So no command succeeds behind one that must be sent again.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

from ..._concurrency.wakeup import Wakeup
from .connection import Argument, ConnectionLost, ReplyError, encode
from .keys import ShardKeys
from .scripts import GROUP_SEND

MULTI, EXEC = encode("MULTI"), encode("EXEC")

#: Errors after which the same command may succeed on another connection, or later.
_ELSEWHERE_OR_LATER = (
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "NOREPLICAS",  # a primary that is cut off from its replicas, with min-replicas-to-write set
    "NOSCRIPT",
    "UNBLOCKED",
    "BUSY ",
    "ERR Script attempted to access a non local key",
    "ERR Script attempted to execute a",  # (write) command while the cluster is down
    "ERR Error running script",  # followed by an error of a command inside the script
)
_FROM_INSIDE = ("READONLY", "MOVED", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "non local key", "cluster is down")
_ABORTED = "EXECABORT Transaction discarded because of: "


def is_elsewhere_or_later(error: Exception) -> bool:
    """Whether the same command may succeed elsewhere or later."""
    text = str(error).removeprefix(_ABORTED)
    if text.startswith("ERR Error running script"):
        return any(mark in text for mark in _FROM_INSIDE)
    return text.startswith(_ELSEWHERE_OR_LATER)


#: Combines the parts of several calls into one command, whose reply is a list with an answer to each.
Combine = Callable[[list[Any]], tuple[Argument, ...]]

NO_ANSWER = object()


class Call(Wakeup):
    """One call. Its task waits for the answer."""

    __slots__ = ("abandoned", "combine", "deadline", "reply", "request", "sent", "size")

    def __init__(self, request: Any, size: int, combine: Combine | None, deadline: float) -> None:
        super().__init__()
        self.request = request
        self.size = size
        self.combine = combine
        self.deadline = deadline
        self.reply: Any = NO_ANSWER
        self.sent = False
        self.abandoned = False


#: The answer to a call that must be sent again because Redis refused another command of its transaction.
NOT_CARRIED_OUT = object()

_combine_of = operator.attrgetter("combine")


class Batch:
    """Calls that are sent in one write."""

    __slots__ = ("_counts", "calls", "data", "replies")

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        # For each command the number of calls combined into it; None for a command of its own, 0 for the second one of
        # its call.
        self._counts: list[int | None] = []
        encoded: list[bytes] = []
        for combine, several in itertools.groupby(calls, _combine_of):
            requests = [call.request for call in several]
            if combine is None:
                for request in requests:
                    commands = (request,) if isinstance(request, bytes) else request
                    encoded += commands
                    self._counts += (None, 0)[: len(commands)]
            else:
                encoded.append(encode(*combine(requests)))
                self._counts.append(len(requests))
        if len(encoded) == 1:
            self.data, self.replies = encoded[0], 1
        else:
            self.data, self.replies = b"".join([MULTI, *encoded, EXEC]), len(encoded) + 2

    def __repr__(self) -> str:
        return f"<Batch of {len(self.calls)} calls in {len(self._counts)} commands>"

    def answers(self, replies: list[Any]) -> list[Any]:
        """The answer to each call; raises ConnectionLost if the batch must be sent again, elsewhere or later."""
        if len(replies) > 1:
            if isinstance(replies[0], ReplyError):
                raise ConnectionLost(str(replies[0]))
            replies = results_of_transaction(replies)
        answers: list[Any] = []
        for count, reply in zip(self._counts, replies, strict=True):
            if count is None:
                answers.append(reply)
            elif count == 0:
                answers[-1] = _both(answers[-1], reply)
            else:
                answers += reply if isinstance(reply, list) else [reply] * count
        for answer in answers:
            if isinstance(answer, ReplyError) and is_elsewhere_or_later(answer):
                raise ConnectionLost(str(answer))
        return answers


def _both(first: Any, second: Any) -> Any:
    """The answer to a call of two commands: both replies, or the one that says why it was not carried out."""
    for reply in (first, second):
        if isinstance(reply, ReplyError):
            return reply
    return second if second is NOT_CARRIED_OUT else (first, second)


def results_of_transaction(replies: list[Any]) -> list[Any]:
    """The answer to each command, from the replies to ``MULTI``, to each command, and to ``EXEC``."""
    queued, executed = replies[1:-1], replies[-1]
    if not isinstance(executed, ReplyError):
        return list(executed)
    if any(isinstance(reply, ReplyError) for reply in queued):
        # A command that is refused before EXEC discards the others; they can be sent again without it.
        return [reply if isinstance(reply, ReplyError) else NOT_CARRIED_OUT for reply in queued]
    return [executed] * len(queued)


#: A message to a group: its number (see :class:`ShardKeys`), the key of the group, the blob.
Part = tuple[int, str, bytes]


class GroupSends:
    """Combines messages to groups that wait together into one command."""

    # Without it, ten tasks that send at the same time would start ten scripts, and each would check the last number of
    # this process and the length of each inbox: more than half of all work in Redis.

    def __init__(self, keys: ShardKeys, inbox_capacity: int) -> None:
        self._keys = keys
        self._inbox_capacity = inbox_capacity

    def part(self, group: str, blob: bytes) -> Part:
        """A message and its number. Give it to the pipeline at once; see :meth:`ShardKeys.stamp`."""
        return self._keys.next_number(), self._keys.group(group), blob

    def __call__(self, messages: list[Part]) -> tuple[Argument, ...]:
        """The command that sends the messages, in order."""
        keys = self._keys
        places: dict[str, int] = {}
        rows: list[Argument] = []
        for number, group, blob in messages:
            rows += (number, places.setdefault(group, len(places) + 2), blob)
        arguments = (keys.process, keys.memory_ms, keys.inboxes, self._inbox_capacity, keys.lease_ms, *rows)
        return GROUP_SEND(keys.done, *places, args=arguments)
