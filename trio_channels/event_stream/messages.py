"""Which event a message of the channel layer is, and with which payload."""

from __future__ import annotations

from typing import Any

import msgspec

from .._asgi.content import client_message
from .._asgi.protocol import Message
from ..topics.frames import payload_of
from .wire import MESSAGE


def content_of(message: Message) -> tuple[str, Any]:
    """The name and the payload of the event that a message is.

    A broadcast to a topic has both; of a ``group_broadcast`` the payload is its text or bytes; of any other message the
    type is the name, and the rest the payload.
    """
    broadcast = client_message(message)
    if broadcast is None:
        rest = {key: value for key, value in message.items() if key != "type"}
        return str(message.get("type")), rest
    if "topic" in message:
        return str(message["event"]), payload_of(broadcast)
    return MESSAGE, broadcast.get("text", broadcast.get("bytes"))


def as_text(payload: Any) -> str:
    """A str as it is, any other payload as JSON, bytes as base64. Raises TypeError if it cannot be encoded."""
    return payload if isinstance(payload, str) else msgspec.json.encode(payload).decode()
