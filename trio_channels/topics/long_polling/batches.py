"""The messages of a post, those of a poll, and those of a stream.

A post holds messages by lines: JSON, or binary frames in base64. A poll's answer holds JSON only, as the client takes
nothing else: there the payload of a binary frame is a string, in base64. A stream has an event for each message, with
its number as the id: JSON, or a binary frame in base64, of the type ``binary``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

import msgspec

from ..._asgi.protocol import Message
from .. import frames
from .outgoing import Data

NDJSON = b"application/x-ndjson"

#: A line that is not empty. A hostile body has millions of empty ones, and a loop over them would hold the Trio thread.
_LINE = re.compile(rb"[^\r\n][^\n]*")


#: JSON may have line ends between its parts.
_LINE_END, _NEXT_LINE = re.compile(r"\r\n|\r|\n"), "\ndata: "


class BatchError(ValueError):
    """A line of a post is neither JSON nor base64."""


def messages_of(body: bytes, content_type: bytes) -> Iterator[str | bytes]:
    """The messages of a post, one by one: a hostile body has millions. Raises BatchError at a line that is none."""
    if content_type.partition(b";")[0].strip().lower() != NDJSON:
        yield _text(body)
        return
    for match in _LINE.finditer(body):
        line = match[0].removesuffix(b"\r")
        if line.startswith(b"["):
            yield _text(line)
        else:
            try:
                yield base64.b64decode(line, validate=True)
            except binascii.Error as error:
                raise BatchError("expected JSON arrays and base64, one a line") from error


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BatchError("expected UTF-8") from error


def data_of(message: Message) -> Data:
    """The data of a ``websocket.send``.

    Raises FrameError if its bytes are no frame of the server, UnicodeEncodeError if its text is none.
    """
    text: str | None = message.get("text")
    if text is not None:
        text.encode()  # not only in a request, where it would be too late
        return text
    data: bytes = message["bytes"]
    frames.in_text(data)
    return data


def text_of(data: Data) -> str:
    """The data as a poll's answer holds it. Raises FrameError if its bytes are no frame of the server."""
    return data if isinstance(data, str) else frames.in_text(data)


def event_of(number: int, data: Data) -> str:
    """The server-sent event of one message."""
    if isinstance(data, bytes):
        return f"id: {number}\nevent: binary\ndata: {base64.b64encode(data).decode()}\n\n"
    return f"id: {number}\ndata: {_LINE_END.sub(_NEXT_LINE, data)}\n\n"


def close_event(code: int, reason: str) -> str:
    """The server-sent event of the end of a session."""
    return f"event: close\ndata: {msgspec.json.encode({'code': code, 'reason': reason}).decode()}\n\n"
