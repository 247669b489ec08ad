"""The direct path between our server and our connections, where nothing in between reads events or changes messages.

The server puts a WebSocket's events into the connection's own queue, and writes a message for many clients without a
task switch. Django's handler takes a request from the server's queue, learns from it of the client's disconnect, and
sends the parts of a stream without a message for each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from .._asgi.protocol import DIRECT, Message, Receive, Scope, Send
from .._concurrency.queues import Inbox
from .._metrics.recording import Series


class Broadcast(Protocol):
    """A message for many clients, with the frames that servers have made of it."""

    message: Message
    frames: dict[int, bytes] | None


def inbox_behind(receive: Receive, scope: Scope) -> Inbox | None:
    """The server's queue, if it is ours and nothing in between reads events."""
    inbox: Inbox | None = (scope.get("extensions") or {}).get(DIRECT)
    return inbox if inbox is not None and receive == inbox.receive else None


def parts_sender_behind(send: Send) -> Callable[[list[bytes], Callable[[], object]], Awaitable[None]] | None:
    """The server's function that sends parts of a body without joining them, if nothing in between sees messages."""
    return getattr(getattr(send, "__self__", None), "send_parts", None)


def writer_behind(send: Send, series: Series | None = None) -> Callable[[Message, Any], bool] | None:
    """The server's function that writes a frame at once, if nothing in between may change or count a message.

    With `series` it counts there what it writes.

    An object that wraps ``send``, and passes each ``websocket.send`` on as it is, says so with `passes_data_to`.
    """
    owner = getattr(send, "__self__", None)
    while (passes_to := getattr(owner, "passes_data_to", None)) is not None:
        owner = getattr(passes_to, "__self__", None)
    writer: Callable[[Message, Any], bool] | None = getattr(owner, "write_now", None)
    return writer if series is None or writer is None else series.counting(writer)
