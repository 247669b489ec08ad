"""What one connection, one address and one process may take of the server, in one immutable value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import trio
from hypercorn.config import Config

from .. import _conf

#: A request body or an unread response that moves slower than this is not a slow line but an attack. In bytes a second.
SLOWEST = 500

#: Seconds for which what a client still sends is read and thrown away after the last word to it. Closing a socket with
#: unread data resets the connection, and the client may lose that last word.
LINGER = 1.0

#: Seconds in which one round of the close frames of a shutdown is to be out, unless the grace is shorter.
ROUND = 3.0


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of the server; the reference page of the settings gives units and reasons.

    Where hypercorn has an option for the same thing, and not its default value, that goes before the setting.
    """

    max_message_size: int
    messages_per_second: int
    compression: bool
    ping_interval: float
    pong_timeout: float
    handshake_timeout: float
    accept_timeout: float
    header_timeout: float
    body_timeout: float
    write_timeout: float
    max_connections: int
    max_connections_per_address: int
    shutdown_grace: float

    @classmethod
    def of(cls, config: Config) -> ServerLimits:
        """The limits that the settings and hypercorn's configuration say together.

        Raises:
            ConfigurationError: the setting ``TRIO_CHANNELS`` is wrong.
        """
        return cls(
            max_message_size=_of(config, "websocket_max_message_size", "MAX_MESSAGE_SIZE"),
            messages_per_second=_conf.get("MESSAGES_PER_SECOND"),
            compression=_conf.get("WEBSOCKET_COMPRESSION"),
            ping_interval=_of(config, "websocket_ping_interval", "PING_INTERVAL"),
            pong_timeout=_conf.get("PONG_TIMEOUT"),
            handshake_timeout=_of(config, "ssl_handshake_timeout", "HANDSHAKE_TIMEOUT"),
            accept_timeout=_conf.get("ACCEPT_TIMEOUT"),
            header_timeout=_conf.get("HEADER_TIMEOUT"),
            body_timeout=_of(config, "read_timeout", "BODY_TIMEOUT"),
            write_timeout=_conf.get("WRITE_TIMEOUT"),
            max_connections=_conf.get("MAX_CONNECTIONS"),
            max_connections_per_address=_conf.get("MAX_CONNECTIONS_PER_ADDRESS"),
            shutdown_grace=_of(config, "graceful_timeout", "SHUTDOWN_GRACE"),
        )


def _of(config: Config, option: str, setting: str) -> Any:
    given = getattr(config, option)
    return _conf.get(setting) if given == getattr(Config, option) else given


class Rate:
    """So many times in each second, and as many at once after a pause.

    Args:
        per_second: how often; 0 for as often as one likes.
    """

    __slots__ = ("_allowance", "_counted_at", "per_second")

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._allowance = float(per_second)
        self._counted_at = 0.0

    def exceeded(self) -> bool:
        """Count one more time; whether that is too often."""
        if not self.per_second:
            return False
        now = trio.current_time()
        grown = self._allowance + (now - self._counted_at) * self.per_second
        self._allowance = min(self.per_second, grown) - 1
        self._counted_at = now
        return self._allowance < 0


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
