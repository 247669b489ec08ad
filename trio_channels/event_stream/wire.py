"""The form of server-sent events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import re

#: What a browser sends when it comes back.
LAST_EVENT_ID = "Last-Event-ID"
#: The event type that ``EventSource.onmessage`` gets.
MESSAGE = "message"

#: A comment, which clients skip.
HEARTBEAT = b":\n\n"

_LINE_END = re.compile("\r\n|\r|\n")
_UNFIT = re.compile("[\r\n\0]")


def block(event: str, data: str, event_id: str | None = None) -> bytes:
    """One event. Raises ValueError if a field cannot be sent."""
    lines = [f"data: {line}" for line in _LINE_END.split(data)]
    if event != MESSAGE:
        lines.insert(0, f"event: {_fit('the name of an event', event)}")
    if event_id is not None:
        lines.insert(0, f"id: {_fit('the id of an event', event_id)}")
    return ("\n".join(lines) + "\n\n").encode()


def id_only(event_id: str) -> bytes:
    """A block that changes the client's last event id, and is no event."""
    return f"id: {_fit('the id of an event', event_id)}\n\n".encode()


def retry(seconds: float) -> bytes:
    """Tell the client how long to wait before it comes back."""
    return b"retry: %d\n\n" % round(seconds * 1000)


def _fit(what: str, value: str) -> str:
    if not value or _UNFIT.search(value):
        raise ValueError(f"{what} must not be empty, nor have a line break or a null character; got {value!r}")
    return value
