"""The frames of the Phoenix Channels protocol, version 2: their fields, their JSON form, their binary form.

A frame is ``[join_ref, ref, topic, event, payload]`` in a text message. If the payload is bytes, it is a binary
message: a kind, the length of each field (one byte each), the fields, the payload.

    kind            fields                            sent by
    0, push         join_ref, ref, topic, event       the client
    0, push         join_ref, topic, event            the server
    1, reply        join_ref, ref, topic, status      the server
    2, broadcast    topic, event                      the server
"""

from __future__ import annotations

import base64
import itertools
from typing import Annotated, Any, NamedTuple

import msgspec

from .._asgi.protocol import Message

JOIN, LEAVE, REPLY, ERROR, CLOSE = "phx_join", "phx_leave", "phx_reply", "phx_error", "phx_close"

#: The topic and the event of heartbeats, which are no application's.
SOCKET_TOPIC, HEARTBEAT = "phoenix", "heartbeat"

#: Bytes of a field in the binary form. A text frame's fields have the same limit, in characters: the server keeps them.
MAX_FIELD = 255

_PUSH, _REPLY, _BROADCAST = 0, 1, 2
#: The number of fields in a frame of the server, by its kind.
_FIELDS = {_PUSH: 3, _REPLY: 4, _BROADCAST: 2}

_Field = Annotated[str, msgspec.Meta(max_length=MAX_FIELD)]
#: Clients count in strings, or in numbers; a number must be one that JavaScript can hold.
Ref = str | int | None
_Ref = _Field | Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | None

_decoder = msgspec.json.Decoder(tuple[_Ref, _Ref, _Field, _Field, msgspec.Raw])
_encoder = msgspec.json.Encoder()


class FrameError(ValueError):
    """A message from a client is not a frame."""


class Frame(NamedTuple):
    """One frame from a client. Its payload is JSON that is not decoded yet, or bytes."""

    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: msgspec.Raw | bytes
    size: int  # of the message, in characters or bytes


def decode(content: str | bytes) -> Frame:
    """Decode a message from a client; raises FrameError unless it is a frame."""
    if isinstance(content, bytes):
        return _decode_binary(content)
    try:
        return Frame(*_decoder.decode(content), len(content))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # also UnicodeError, which is a ValueError
        raise FrameError("expected [join_ref, ref, topic, event, payload]") from error


def _decode_binary(content: bytes) -> Frame:
    sizes = content[1:5]
    start = 5 + sum(sizes)
    if len(sizes) < 4 or content[0] != _PUSH or len(content) < start:
        raise FrameError("expected a binary push of Phoenix Channels")
    fields: list[str] = []
    end = 5
    for size in sizes:
        try:
            fields.append(content[end : end + size].decode())
        except UnicodeDecodeError as error:
            raise FrameError("expected UTF-8 in the fields of a binary push") from error
        end += size
    join_ref, ref, topic, event = fields
    return Frame(join_ref or None, ref or None, topic, event, content[start:], len(content))


def push(join_ref: Ref, topic: str, event: str, payload: object, *, ref: Ref = None) -> Message:
    """The message of a push to one client. Raises TypeError or ValueError if the payload cannot be encoded."""
    if isinstance(payload, bytes):
        return _binary(_PUSH, (_text(join_ref), topic, event), payload)
    return _json(join_ref, ref, topic, event, payload)


def reply(join_ref: Ref, ref: Ref, topic: str, status: str, response: object) -> Message:
    """The message of a reply. Raises TypeError or ValueError if the response cannot be encoded."""
    if isinstance(response, bytes):
        return _binary(_REPLY, (_text(join_ref), _text(ref), topic, status), response)
    return _json(join_ref, ref, topic, REPLY, {"status": status, "response": {} if response is None else response})


def broadcast(topic: str, event: str, payload: object) -> Message:
    """The message of a broadcast, the same for all clients. Raises TypeError or ValueError as :func:`push`."""
    if isinstance(payload, bytes):
        return _binary(_BROADCAST, (topic, event), payload)
    return _json(None, None, topic, event, payload)


def payload_of(message: Message) -> Any:
    """The payload of a broadcast, decoded."""
    text = message.get("text")
    if text is not None:
        return msgspec.json.decode(text)[4]
    content: bytes = message["bytes"]
    return content[3 + content[1] + content[2] :]


def in_text(content: bytes) -> str:
    """A binary frame of the server as a text frame, its payload a string in base64. Raises FrameError for others."""
    number = _FIELDS.get(content[0]) if content else None
    sizes = content[1 : 1 + (number or 0)]
    ends = list(itertools.accumulate(sizes, initial=1 + len(sizes)))
    if number is None or len(sizes) < number or len(content) < ends[-1]:
        raise FrameError("expected a binary frame of the server")
    fields = [content[start:end].decode() or None for start, end in itertools.pairwise(ends)]
    payload = base64.b64encode(content[ends[-1] :]).decode()
    if content[0] == _REPLY:
        join_ref, ref, topic, status = fields
        frame = [join_ref, ref, topic, REPLY, {"status": status, "response": payload}]
    else:
        *references, topic, event = fields
        frame = [references[0] if references else None, None, topic, event, payload]
    return _encoder.encode(frame).decode()


def _json(join_ref: Ref, ref: Ref, topic: str, event: str, payload: object) -> Message:
    content = [join_ref, ref, topic, event, {} if payload is None else payload]
    return {"type": "websocket.send", "text": _encoder.encode(content).decode()}


def _binary(kind: int, fields: tuple[str, ...], payload: bytes) -> Message:
    encoded = [field.encode() for field in fields]
    for field in encoded:
        if len(field) > MAX_FIELD:
            raise ValueError(
                f"the topic, event and references of a binary message must have at most {MAX_FIELD} bytes each; "
                f"got {len(field)}"
            )
    return {"type": "websocket.send", "bytes": bytes([kind, *map(len, encoded)]) + b"".join(encoded) + payload}


def _text(ref: Ref) -> str:
    return "" if ref is None else str(ref)
