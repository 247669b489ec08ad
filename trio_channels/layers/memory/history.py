"""The histories of the in-memory layer's groups, shared by the Trio runs of the process.

A position is the random epoch of its history, and the message's number in it. A history that was flushed or forgotten
begins again with another epoch.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from ..._asgi.protocol import Message
from ..history import HistoryRule, may_be_position, stamp
from ..message import Place

#: Seconds between two sweeps for histories that nobody has used for long.
SWEEP_INTERVAL = 60.0


class KeptMessage(NamedTuple):
    """A message of a history, as members get it."""

    place: Place
    message: Message
    exclude: frozenset[str]
    sent_at: float


@dataclass(slots=True)
class _GroupHistory:
    rule: HistoryRule
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    newest: int = 0  # the number of the last message
    messages: deque[KeptMessage] = field(default_factory=deque)
    used_at: float = 0.0

    def forget_old(self, now: float) -> None:
        messages = self.messages
        while messages and messages[0].sent_at <= now - self.rule.seconds:
            messages.popleft()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a history has behind a position: see :class:`~trio_channels.layers.history.History`.

    Args:
        newest: the place of the group's newest message.
    """

    messages: list[KeptMessage]
    recovered: bool
    newest: Place
    position: str


class MemoryHistories:
    """The histories. Its methods are thread-safe, but for :meth:`keep`.

    Args:
        forget_after: seconds after which an unused history begins again.

    Attributes:
        lock: whoever holds it sees no message that was kept, and not scheduled for delivery.
    """

    def __init__(self, forget_after: float) -> None:
        self.lock = threading.RLock()
        self._forget_after = forget_after
        self._groups: dict[str, _GroupHistory] = {}
        self._sweep_at = now() + SWEEP_INTERVAL

    def __repr__(self) -> str:
        return f"<MemoryHistories of {len(self._groups)} groups>"

    def counts(self) -> tuple[int, int]:
        """The number of groups with messages, and of their messages."""
        with self.lock:
            for found in self._groups.values():
                found.forget_old(now())
            counts = [len(found.messages) for found in self._groups.values() if found.messages]
        return len(counts), sum(counts)

    def _of(self, group: str, rule: HistoryRule) -> _GroupHistory:
        at = now()
        if at >= self._sweep_at:
            self._sweep(at)  # also deletes old messages
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = _GroupHistory(rule)
        found.used_at = at
        return found

    def _sweep(self, at: float) -> None:
        self._sweep_at = at + SWEEP_INTERVAL
        for group, found in list(self._groups.items()):
            found.forget_old(at)
            if found.used_at < at - max(self._forget_after, found.rule.seconds):
                del self._groups[group]

    def keep(self, group: str, rule: HistoryRule, message: Message, exclude: frozenset[str]) -> KeptMessage:
        """Give a message its position, and keep it. The caller holds the lock."""
        found = self._of(group, rule)
        found.newest = number = found.newest + 1
        stamp(message, group, f"{found.epoch}-{number}")
        kept = KeptMessage((found.epoch, number, 0), message, exclude, found.used_at)
        messages = found.messages
        messages.append(kept)
        if len(messages) > rule.messages:
            messages.popleft()
        return kept

    def read(self, group: str, rule: HistoryRule, since: object, limit: int | None = None) -> Reading:
        """The messages behind a position, the first ones; without a position the newest ones."""
        with self.lock:
            found = self._of(group, rule)
            found.forget_old(found.used_at)
            kept, newest = list(found.messages), (found.epoch, found.newest, 0)
            if since is None:
                chosen, recovered = kept if limit is None else kept[-limit:], False
            else:
                missed = found.newest - _number(since, found.epoch)
                recovered = 0 <= missed <= len(kept)
                chosen = kept[len(kept) - missed :][:limit] if recovered else []
            last = chosen[-1].place[1] if chosen else found.newest
            return Reading(chosen, recovered, newest, f"{found.epoch}-{last}")

    def clear(self) -> None:
        """Forget all."""
        with self.lock:
            self._groups.clear()


def _number(since: object, epoch: str) -> int:
    """The number in a position of this epoch; -1, which is too old for every history, for anything else."""
    if not may_be_position(since):
        return -1
    given, _, number = str(since).rpartition("-")
    return int(number) if given == epoch and number.isdecimal() and str(int(number)) == number else -1


def now() -> float:
    """A clock that all Trio runs share."""
    return time.monotonic()
