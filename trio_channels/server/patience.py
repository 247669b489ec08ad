"""How long a client may take for what it is expected to send."""

from __future__ import annotations

import math
from enum import Enum, auto

from .limits import SLOWEST, ServerLimits


class Waiting(Enum):
    """What the server waits for."""

    REQUEST = auto()  # the next one, if there is one: keep-alive
    HEAD = auto()
    BODY = auto()
    NOTHING = auto()


class Patience:
    """The deadline for what a connection's client is expected to send.

    Args:
        limits: of the server.
        keep_alive: seconds for which a connection without a request is kept.
    """

    __slots__ = ("_keep_alive", "_limits", "_spent", "deadline", "waiting")

    def __init__(self, limits: ServerLimits, keep_alive: float) -> None:
        self._limits = limits
        self._keep_alive = keep_alive
        self._spent = 0.0
        self.waiting = Waiting.NOTHING
        self.deadline = math.inf

    def expect(self, waiting: Waiting, now: float) -> None:
        """Say what is waited for; the time for the same thing goes on."""
        if waiting is self.waiting:
            if waiting is Waiting.BODY:
                self.deadline = now + self._limits.body_timeout - self._spent
            return
        self.waiting = waiting
        self._spent = 0.0
        if waiting is Waiting.NOTHING:
            self.deadline = math.inf
        elif waiting is Waiting.BODY:
            self.deadline = now + self._limits.body_timeout
        else:
            self.deadline = now + (self._keep_alive if waiting is Waiting.REQUEST else self._limits.header_timeout)

    def forget(self) -> None:
        """Say that what was waited for has come: the next thing has a time of its own, the same thing too."""
        self.waiting = Waiting.NOTHING
        self.deadline = math.inf

    def received(self, size: int, seconds: float) -> None:
        """Count what has come, and how long it was waited for: the time in which nobody waited is not the client's."""
        self._spent = max(0.0, self._spent + seconds - size / SLOWEST)
