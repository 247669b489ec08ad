"""Parts of the cases of RFC 9113 and RFC 7541: frames, and the answers to them.

An error of a stream may be treated as one of the connection (RFC 9113, section 5.4); h2 does so with many. The rows say
which of the two the server does.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from h2.errors import ErrorCodes as E

from .raw import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    block,
    frame,
    headers,
    request,
)


class Ends(NamedTuple):
    """The connection ends, with GOAWAY and this code."""

    code: E


class Resets(NamedTuple):
    """The stream is reset with this code, and the connection lives."""

    code: E
    stream: int = 1


class Answers(NamedTuple):
    """The request is answered, and the connection lives."""

    status: int = 200
    stream: int = 1


class Lives(NamedTuple):
    """The connection lives."""


Expected = Ends | Resets | Answers | Lives


class Case(NamedTuple):
    section: str
    name: str
    sent: bytes
    expected: Expected


GET = headers()
OPEN = headers(1, request(method="POST"), END_HEADERS)  # its body is to follow
BLOCK = block(request())
BEGUN = frame(HEADERS, END_STREAM, 1, BLOCK[:3])  # the rest of its block is to follow
SLOW_FIELDS = request("/slow")
SLOW = headers(1, SLOW_FIELDS)  # a request that is not answered soon
MOST = 2**31 - 1
CANCELLED = OPEN + frame(RST_STREAM, 0, 1, struct.pack("!L", E.CANCEL))

PROTOCOL, COMPRESSION, SIZE, FLOW, CLOSED = (
    Ends(E.PROTOCOL_ERROR),
    Ends(E.COMPRESSION_ERROR),
    Ends(E.FRAME_SIZE_ERROR),
    Ends(E.FLOW_CONTROL_ERROR),
    Ends(E.STREAM_CLOSED),
)


def priority(stream: int, above: int = 0, weight: int = 15, exclusive: bool = False) -> bytes:
    return frame(PRIORITY, 0, stream, struct.pack("!LB", above | exclusive << 31, weight))


def without(name: str) -> list[tuple[str, str]]:
    return [pair for pair in request() if pair[0] != name]


def with_(*more: tuple[str, str]) -> bytes:
    return headers(1, request("/", "GET", *more))


def first(*pairs: tuple[str, str]) -> bytes:
    """A request with these fields before its others."""
    return headers(1, [*pairs, *request()])


def encoded(fragment: bytes) -> bytes:
    """A request whose block ends with this."""
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, BLOCK + fragment)


def literal(name: bytes, value: bytes, kind: bytes = b"\x00") -> bytes:
    return kind + bytes([len(name)]) + name + bytes([len(value)]) + value


def post(*parts: bytes, length: int | None = None) -> bytes:
    """A request with a body of these parts."""
    more = [] if length is None else [("content-length", str(length))]
    frames = [frame(DATA, END_STREAM * (number == len(parts)), 1, part) for number, part in enumerate(parts, 1)]
    return headers(1, request("/", "POST", *more), END_HEADERS) + b"".join(frames)
