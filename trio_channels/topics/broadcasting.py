"""Broadcasts to topics: one message to a group of the channel layer, with the frame for every client in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, cast

from .._asgi.content import BROADCAST
from .._asgi.protocol import Message
from ..exceptions import InvalidChannelLayerError, MessageNotEncodable
from ..layers import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ..layers.base import ChannelLayer
from ..layers.names import MAX_NAME_LENGTH
from . import frames

_PREFIX = "topic."

#: A group name that would be too long ends with a hash of the topic, after so many characters of it.
_READABLE = 48


def group_of(topic: str) -> str:
    """The channel layer group of a topic: ``room:lobby`` has ``topic.room.lobby``. No two topics have the same.

    A colon becomes a dot; ``_`` becomes ``__`` and a dot ``_.``; another character that no group name may have becomes
    ``_x``, its code, and a dot.
    """
    escaped = re.sub(r"[^A-Za-z0-9-]", _escape, topic)
    if len(_PREFIX) + len(escaped) <= MAX_NAME_LENGTH:
        return _PREFIX + escaped
    digest = hashlib.sha256(topic.encode("utf-8", "surrogatepass")).hexdigest()[:40]
    return f"{_PREFIX}{escaped[:_READABLE].rstrip('_')}_h{digest}"  # no character is escaped as _h


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return {":": ".", "_": "__", ".": "_."}.get(character) or f"_x{ord(character):x}."


def broadcast_message(topic: str, event: str, payload: object) -> Message:
    """The channel layer message of a broadcast. Raises MessageNotEncodable."""
    for name, value in cast(tuple[tuple[str, object], ...], (("topic", topic), ("event", event))):
        if not isinstance(value, str) or not value or len(value) > frames.MAX_FIELD:
            raise MessageNotEncodable(
                f"the {name} of a broadcast must be a str of 1 to {frames.MAX_FIELD} characters; got {value!r:.300}"
            )
    try:
        message = frames.broadcast(topic, event, payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageNotEncodable(f"the payload of the broadcast {event!r} cannot be encoded: {error}") from error
    return {**message, "type": BROADCAST, "topic": topic, "event": event}


async def broadcast(
    topic: str,
    event: str,
    payload: Any = None,
    *,
    exclude: str | Iterable[str] = (),
    layer: ChannelLayer | None = None,
) -> str | None:
    """Send an event to every client that has joined a topic. From synchronous code: ``async_to_sync(broadcast)(...)``.

    The frame is encoded once, and made into bytes once for each process.

    Args:
        topic: the topic's name, such as ``room:lobby``. Nobody need have joined it.
        event: the event's name.
        payload: a value that msgspec encodes as JSON, or bytes; an empty object by default.
        exclude: the channel names of sockets that do not get it; one name or several.
        layer: the channel layer; that of the alias ``default`` by default.

    Returns:
        The position of the broadcast; None if the topic has no history.

    Raises:
        MessageNotEncodable: a name is empty or too long, or the payload cannot be encoded.
        InvalidChannelLayerError: there is no channel layer.
        InvalidNameError, ChannelLayerUnavailable: as ``group_send`` of the layer.

    Cancellation: as ``group_send`` of the layer.
    """
    chosen = get_channel_layer() if layer is None else layer
    if chosen is None:
        raise InvalidChannelLayerError(
            f"a broadcast to a topic needs a channel layer, but CHANNEL_LAYERS has no entry {DEFAULT_CHANNEL_LAYER!r}"
        )
    message = broadcast_message(topic, event, payload)
    position: str | None = await chosen.group_send(group_of(topic), message, exclude=exclude)
    return position
