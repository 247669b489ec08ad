"""The content of WebSocket messages: JSON as text, and the channel layer's message for all clients of a group."""

from __future__ import annotations

import json as _json
from typing import Any

from ..exceptions import MessageNotEncodable
from .protocol import Message

#: The type of a channel layer message for the clients of a group's WebSockets. It holds their text or bytes.
BROADCAST = "group.broadcast"

#: The argument that is not given: ``json=None`` is the JSON value null.
NOT_GIVEN: Any = object()


def dumps(content: Any) -> str:
    """JSON as the text of a WebSocket message."""
    text = _json.dumps(content, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A client may send half of a surrogate pair as an escape. UTF-8 cannot hold it, so the answer is escaped too.
        return _json.dumps(content)
    return text


def broadcast_message(text: str | None, data: bytes | None, json: Any) -> Message:
    """The message of a ``group_broadcast``; raises MessageNotEncodable unless exactly one argument is its content."""
    given = [name for name, value in (("text", text), ("bytes", data)) if value is not None]
    if json is not NOT_GIVEN:
        given.append("json")
    if len(given) != 1:
        raise MessageNotEncodable(
            f"group_broadcast() expects one of text, bytes and json; got {' and '.join(given) or 'none of them'}"
        )
    if given == ["json"]:
        try:
            return {"type": BROADCAST, "text": dumps(json)}
        except (TypeError, ValueError, RecursionError) as error:
            raise MessageNotEncodable(f"the json of group_broadcast() cannot be encoded: {error}") from error
    if data is not None:
        if not isinstance(data, bytes):
            raise MessageNotEncodable(f"the bytes of group_broadcast() must be bytes; got {type(data).__name__}")
        return {"type": BROADCAST, "bytes": data}
    if not isinstance(text, str):
        raise MessageNotEncodable(f"the text of group_broadcast() must be a str; got {type(text).__name__}")
    return {"type": BROADCAST, "text": text}


def client_message(message: Message) -> Message | None:
    """The ``websocket.send`` that a broadcast stands for; None if the message is no broadcast."""
    if message.get("type") != BROADCAST:
        return None
    text, data = message.get("text"), message.get("bytes")
    if isinstance(text, str):
        return {"type": "websocket.send", "text": text}
    return {"type": "websocket.send", "bytes": data} if isinstance(data, bytes) else None
