"""What one connection, one address and one process may take of the server, in one immutable value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
