"""The messages of a post, and those of a poll.

A post holds messages by lines: JSON, or binary frames in base64. A poll's answer holds JSON only, as the client takes
nothing else: there the payload of a binary frame is a string, in base64.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from ..._asgi.protocol import Message
from .. import frames

NDJSON = b"application/x-ndjson"

#: A line that is not empty. A hostile body has millions of empty ones, and a loop over them would hold the Trio thread.
_LINE = re.compile(rb"[^\r\n][^\n]*")


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


def text_of(message: Message) -> str:
    """The text for the client of a ``websocket.send``. Raises FrameError if its bytes are no frame of the server."""
    text: str | None = message.get("text")
    if text is not None:
        return text
    return frames.in_text(message["bytes"])
