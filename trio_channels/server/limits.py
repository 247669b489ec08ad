"""The limits of a connection, an address and a process; the rate of messages; the deadlines of requests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import trio
from hypercorn.config import Config

from .. import _conf

#: Bytes a second. A request body or response that moves slower is treated as an attack, not as a slow line.
SLOWEST = 500

#: Seconds for which the server reads and discards input after its last message. Closing a socket with unread data
#: resets the connection, and the client may lose that message.
LINGER = 1.0

#: Seconds after which it stops to do so, if a client that sends a body has not fallen silent: it may look for the
#: response only after the body.
LINGER_FOR_BODY = 30.0

#: Seconds over which a shutdown spreads its close frames, unless the grace is shorter.
ROUND = 3.0


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of the server; the reference page of the settings gives units and reasons."""

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
        """The limits from the settings and hypercorn's configuration. Raises ConfigurationError."""
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
    """An option of hypercorn takes precedence over the setting if it differs from hypercorn's default."""
    given = getattr(config, option)
    return _conf.get(setting) if given == getattr(Config, option) else given


class Pace:
    """The time that a frame has taken which has come in part."""

    __slots__ = ("_since", "_spent", "frame")

    def __init__(self, frame: int) -> None:
        self.frame = frame  # its number
        self._spent = 0.0
        self._since = trio.current_time()

    def go_on(self) -> None:
        """Wait for the next part from now on: time in which the application kept the client waiting is free."""
        self._since = trio.current_time()

    def is_too_slow(self, size: int, timeout: float) -> bool:
        """Count a part of so many bytes; returns whether the frame takes longer than the timeout and its bytes give."""
        self._spent = max(0.0, self._spent + trio.current_time() - self._since - size / SLOWEST)
        return self._spent > timeout


class Waiting(Enum):
    """The part of a request that the server waits for."""

    REQUEST = auto()  # the next one of a kept-alive connection, which may never come
    HEAD = auto()
    BODY = auto()
    NOTHING = auto()


class Patience:
    """The deadline for the client to send the part of a request that the server waits for."""

    __slots__ = ("_keep_alive", "_limits", "_spent", "deadline", "waiting")

    def __init__(self, limits: ServerLimits, keep_alive: float) -> None:
        self._limits = limits
        self._keep_alive = keep_alive
        self._spent = 0.0
        self.waiting = Waiting.NOTHING
        self.deadline = math.inf

    def expect(self, waiting: Waiting, now: float) -> None:
        """Set the deadline for a part; the deadline of the same part stays."""
        if waiting is self.waiting:
            if waiting is Waiting.BODY:
                self.deadline = now + self._limits.body_timeout - self._spent
            return
        self.waiting = waiting
        if waiting is Waiting.NOTHING:
            self.deadline = math.inf  # the body may go on, when the application has taken the part that has come
        elif waiting is Waiting.BODY:
            self.deadline = now + self._limits.body_timeout - self._spent
        else:
            self._spent = 0.0
            self.deadline = now + (self._keep_alive if waiting is Waiting.REQUEST else self._limits.header_timeout)

    def forget(self) -> None:
        """Forget the part: the next ``expect`` sets a new deadline, also for the same part."""
        self.waiting = Waiting.NOTHING
        self.deadline = math.inf
        self._spent = 0.0

    def received(self, size: int, seconds: float) -> None:
        """Count bytes of a body and the seconds of waiting for them; time in which nothing was expected is free."""
        self._spent = max(0.0, self._spent + seconds - size / SLOWEST)
