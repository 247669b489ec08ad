"""The limits of one connection, in one immutable value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What happens to a mailbox's owner when the mailbox is full; see :meth:`ChannelLayer.subscribe`.
Overflow = Literal["close", "drop_newest", "drop_oldest"]

#: Messages that a mailbox holds.
CAPACITY = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much one connection may take.

    Args:
        read_ahead: client events that are read before a handler takes them. Enough that pings, closes and disconnects
            are seen while a handler runs, small enough that a flooder meets TCP back-pressure.
        accept_timeout: seconds in which a WebSocket must be accepted or denied.
        disconnect_timeout: seconds a running handler may go on after its client has left, and seconds that the
            ``disconnect`` handler may take.
        close_timeout: seconds to wait, after this side has closed, for the server to confirm it.
        send_timeout: seconds a synchronous handler may wait for a slow client before the connection is cut.
        outbox: messages of a synchronous consumer that may wait to be written.
    """

    read_ahead: int = 16
    accept_timeout: float = 10.0
    disconnect_timeout: float = 10.0
    close_timeout: float = 10.0
    send_timeout: float = 20.0
    outbox: int = 64
