"""The frames of the Phoenix Channels protocol, version 2, as a client sends and gets them."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from ..exceptions import MessageNotEncodable

JOIN, LEAVE, REPLY, ERROR, CLOSE = "phx_join", "phx_leave", "phx_reply", "phx_error", "phx_close"
#: The event of a frame that has nothing but a position, and those of presence.
POSITION, STATE, DIFF = "phx_position", "presence_state", "presence_diff"
#: The begin of the protocol's own events.
RESERVED = "phx_"
#: The topic and the event of heartbeats.
SOCKET_TOPIC, HEARTBEAT = "phoenix", "heartbeat"

#: Bytes of a topic or event.
MAX_FIELD = 255

#: Of a binary frame's kind: the number of its fields.
_PUSH, _REPLY, _BROADCAST = 0, 1, 2
_FIELDS = {_PUSH: 3, _REPLY: 4, _BROADCAST: 2}

_decoder = msgspec.json.Decoder(list[Any])
_encoder = msgspec.json.Encoder()


class FrameError(ValueError):
    """A message from the server is not a frame."""


class ServerFrame(NamedTuple):
    """A frame from the server. The payload of a binary one is bytes, or a reply with bytes."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any
    position: str | None = None


def decode(message: str | bytes) -> ServerFrame:
    """Decode a message from the server; raises FrameError unless it is a frame."""
    frame = _decode_json(message) if isinstance(message, str) else _decode_binary(message)
    if frame.event == REPLY:
        payload = frame.payload
        if not isinstance(payload, dict) or not isinstance(payload.get("status"), str) or "response" not in payload:
            raise FrameError("expected a reply with a status and a response")
    return frame


def _decode_json(message: str) -> ServerFrame:
    try:
        fields = _decoder.decode(message)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError("expected [join_ref, ref, topic, event, payload]") from error
    if len(fields) == 5:
        fields.append(None)
    if len(fields) != 6:
        raise FrameError(f"expected 5 or 6 fields, got {len(fields)}")
    join_ref, ref, topic, event, payload, position = fields
    if not isinstance(topic, str) or not isinstance(event, str):
        raise FrameError("expected strings as topic and event")
    if any(not isinstance(field, str | None) for field in (join_ref, ref, position)):
        raise FrameError("expected strings or null as references and position")
    return ServerFrame(join_ref, ref, topic, event, payload, position)


def _decode_binary(message: bytes) -> ServerFrame:
    number = _FIELDS.get(message[0]) if message else None
    if number is None:
        raise FrameError("expected a binary push, reply or broadcast")
    sizes = message[1 : 1 + number]
    place = 1 + number
    if len(sizes) < number or len(message) < place + sum(sizes):
        raise FrameError("expected the fields of a binary frame, got fewer bytes")
    fields: list[str] = []
    for size in sizes:
        try:
            fields.append(message[place : place + size].decode())
        except UnicodeDecodeError as error:
            raise FrameError("expected UTF-8 in the fields of a binary frame") from error
        place += size
    payload = message[place:]
    if message[0] == _REPLY:
        join_ref, ref, topic, status = fields
        return ServerFrame(join_ref or None, ref or None, topic, REPLY, {"status": status, "response": payload})
    *join_refs, topic, event = fields
    return ServerFrame((join_refs or [""])[0] or None, None, topic, event, payload)


def encode_payload(payload: object) -> msgspec.Raw | bytes:
    """Encode a payload, None as an empty object. Raises MessageNotEncodable."""
    if isinstance(payload, bytes):
        return payload
    try:
        return msgspec.Raw(_encoder.encode({} if payload is None else payload))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageNotEncodable(f"a payload must be a value that JSON can hold, or bytes: {error}") from error


def check_name(kind: str, name: object) -> None:
    """Raises MessageNotEncodable unless a server takes the topic or event."""
    if not isinstance(name, str) or not 0 < len(name.encode("utf-8", "replace")) <= MAX_FIELD:
        raise MessageNotEncodable(f"the {kind} must be a str of 1 to {MAX_FIELD} bytes; got {name!r:.300}")
    if kind == "event" and name.startswith(RESERVED):
        raise MessageNotEncodable(f"events that begin with {RESERVED!r} belong to the protocol; got {name!r:.300}")


def encode(join_ref: str | None, ref: str, topic: str, event: str, payload: msgspec.Raw | bytes) -> str | bytes:
    """Encode a frame."""
    if isinstance(payload, msgspec.Raw):
        return _encoder.encode([join_ref, ref, topic, event, payload]).decode()
    fields = [(field or "").encode() for field in (join_ref, ref, topic, event)]
    return bytes([_PUSH, *map(len, fields)]) + b"".join(fields) + payload
