"""RFC 6455 and RFC 7692 case by case: frames of a client, and the answers of a server that echoes."""

from __future__ import annotations

import itertools
import zlib
from typing import NamedTuple

from .clients import frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: The sizes at which the form of a length changes, and one beyond each.
SIZES = (0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537)


class Case(NamedTuple):
    """An input; the frames that come back; and the code of the close frame behind them, or None: it goes on."""

    data: bytes
    answer: bytes = b""
    code: int | None = None


def answered(opcode: int, payload: bytes, first: int = 0x80) -> bytes:
    """A frame of a server."""
    size = len(payload)
    if size < 126:
        return bytes((first | opcode, size)) + payload
    if size < 65_536:
        return bytes((first | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first | opcode, 127)) + size.to_bytes(8, "big") + payload


def parts(opcode: int, payload: bytes, size: int, between: bytes = b"") -> bytes:
    """A message in frames of so many bytes, with something between each two."""
    starts = range(0, max(1, len(payload)), size)
    frames = [
        frame(0 if start else opcode, payload[start : start + size], fin=start + size >= len(payload))
        for start in starts
    ]
    return between.join(frames)


def echo(opcode: int, payload: bytes) -> Case:
    return Case(frame(opcode, payload), answered(opcode, payload))


#: Section 5.6 and 5.2 of RFC 6455: messages of every size.
MESSAGES = {
    f"{name} of {size} bytes": echo(opcode, b"*" * size)
    for size, (name, opcode) in itertools.product(SIZES, (("text", TEXT), ("binary", BINARY)))
}

#: Section 5.5.
CONTROL = {
    "an empty ping": Case(frame(PING), answered(PONG, b"")),
    "a ping with text": Case(frame(PING, b"hello"), answered(PONG, b"hello")),
    "a ping with any bytes": Case(frame(PING, b"\0\xff\xfe\xfd"), answered(PONG, b"\0\xff\xfe\xfd")),
    "a ping of 125 bytes": Case(frame(PING, b"\xfe" * 125), answered(PONG, b"\xfe" * 125)),
    "a ping of 126 bytes": Case(frame(PING, b"\xfe" * 126), code=1002),
    "a ping of 65,536 bytes": Case(frame(PING, b"\xfe" * 65_536), code=1002),
    "ten pings": Case(
        b"".join(frame(PING, b"%d" % number) for number in range(10)),
        b"".join(answered(PONG, b"%d" % number) for number in range(10)),
    ),
    "an unasked pong": Case(frame(PONG)),
    "an unasked pong with text, and a ping": Case(frame(PONG, b"a") + frame(PING, b"b"), answered(PONG, b"b")),
    "a pong of 126 bytes": Case(frame(PONG, b"a" * 126), code=1002),
    "a ping in parts": Case(frame(PING, b"a", fin=False) + frame(CONTINUATION, b"b"), code=1002),
    "a pong in parts": Case(frame(PONG, b"a", fin=False) + frame(CONTINUATION, b"b"), code=1002),
}

#: Section 5.2: reserved bits and opcodes, masks and lengths.
RESERVED = {
    **{
        f"bits {bits:03b} on opcode {opcode}": Case(frame(opcode, b"", reserved=bits << 4), code=1002)
        for bits, opcode in itertools.product(range(1, 8), (TEXT, BINARY, PING, PONG, CLOSE))
    },
    **{
        f"opcode {opcode}, {len(payload)} bytes": Case(frame(opcode, payload), code=1002)
        for opcode, payload in itertools.product((3, 4, 5, 6, 7, 11, 12, 13, 14, 15), (b"", b"payload"))
    },
    "no mask": Case(b"\x81\x05hello", code=1002),
    "no mask, empty": Case(b"\x81\x00", code=1002),
    "a length of 5 in 2 bytes": Case(frame(TEXT, b"hello", size=b"\xfe\0\5"), code=1002),
    "a length of 5 in 8 bytes": Case(frame(TEXT, b"hello", size=b"\xff" + (5).to_bytes(8, "big")), code=1002),
    "a length of 65,535 in 8 bytes": Case(frame(TEXT, b"", size=b"\xff" + (65_535).to_bytes(8, "big")), code=1002),
    "a length with the highest bit": Case(frame(TEXT, b"", size=b"\xff" + b"\x80" + bytes(7)), code=1002),
    "a length of 2**62": Case(frame(TEXT, b"", size=b"\xff" + (2**62).to_bytes(8, "big")), code=1009),
}

HELLO = answered(TEXT, b"hello")

#: Section 5.4.
FRAGMENTS = {
    "two": Case(parts(TEXT, b"hello", 3), HELLO),
    "two, binary": Case(parts(BINARY, b"hello", 3), answered(BINARY, b"hello")),
    "one byte each": Case(parts(TEXT, b"hello", 1), HELLO),
    "empty ones": Case(frame(TEXT, fin=False) + frame(0, fin=False) + frame(0), answered(TEXT, b"")),
    "an empty one, some bytes, an empty one": Case(
        frame(TEXT, fin=False) + frame(0, b"hello", fin=False) + frame(0), HELLO
    ),
    "a ping between": Case(parts(TEXT, b"hello", 3, frame(PING, b"a")), answered(PONG, b"a") + HELLO),
    "pings between": Case(parts(TEXT, b"hello", 1, frame(PING, b"a")), answered(PONG, b"a") * 4 + HELLO),
    "pongs between": Case(parts(TEXT, b"hello", 1, frame(PONG, b"a")), HELLO),
    "two messages": Case(parts(TEXT, b"hello", 2) * 2, HELLO * 2),
    "no beginning, the end": Case(frame(0, b"hello"), code=1002),
    "no beginning, more": Case(frame(0, b"hello", fin=False), code=1002),
    "no beginning, empty": Case(frame(0), code=1002),
    "one end too many": Case(frame(TEXT, fin=False) + frame(0, b"hello", fin=False) * 2 + frame(TEXT), code=1002),
    "a text within a text": Case(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), code=1002),
    "a binary within a text": Case(frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), code=1002),
    "a text within a binary": Case(frame(BINARY, b"a", fin=False) + frame(TEXT, b"b", fin=False), code=1002),
    "a close between": Case(parts(TEXT, b"hello", 3, frame(CLOSE, b"\x03\xe8")), code=1000),
    "65,536 bytes in frames of 1,300": Case(parts(BINARY, b"*" * 65_536, 1_300), answered(BINARY, b"*" * 65_536)),
}

_VALID = {
    "Greek": "κόσμε".encode(),
    "the first of 1 byte": b"\0",
    "the first of 2 bytes": b"\xc2\x80",
    "the first of 3 bytes": b"\xe0\xa0\x80",
    "the first of 4 bytes": b"\xf0\x90\x80\x80",
    "the last of 1 byte": b"\x7f",
    "the last of 2 bytes": b"\xdf\xbf",
    "the last of 3 bytes": b"\xef\xbf\xbf",
    "the last of all": b"\xf4\x8f\xbf\xbf",
    "before the surrogates": b"\xed\x9f\xbf",
    "behind the surrogates": b"\xee\x80\x80",
    "the replacement character": b"\xef\xbf\xbd",
    "a byte order mark": b"\xef\xbb\xbf",
    **{f"the noncharacter {plane:x}FFFE": chr(plane * 0x10000 + 0xFFFE).encode() for plane in range(17)},
    **{f"the noncharacter {plane:x}FFFF": chr(plane * 0x10000 + 0xFFFF).encode() for plane in range(17)},
}

_INVALID = {
    "beyond the last": b"\xf4\x90\x80\x80",
    "the first of 5 bytes": b"\xf8\x88\x80\x80\x80",
    "the first of 6 bytes": b"\xfc\x84\x80\x80\x80\x80",
    "the last of 5 bytes": b"\xfb\xbf\xbf\xbf\xbf",
    "the last of 6 bytes": b"\xfd\xbf\xbf\xbf\xbf\xbf",
    "the lowest continuation": b"\x80",
    "the highest continuation": b"\xbf",
    "all continuations": bytes(range(0x80, 0xC0)),
    **{f"{byte:x} and a space": bytes((byte, 0x20)) for byte in (*range(0xC0, 0x100, 5), 0xC1, 0xF5, 0xFE, 0xFF)},
    "2 bytes without the last": b"\xc2",
    "3 bytes without the last": b"\xe0\xa0",
    "4 bytes without the last": b"\xf0\x90\x80",
    "a slash in 2 bytes": b"\xc0\xaf",
    "a slash in 3 bytes": b"\xe0\x80\xaf",
    "a slash in 4 bytes": b"\xf0\x80\x80\xaf",
    "an overlong 2-byte form": b"\xc1\xbf",
    "an overlong 3-byte form": b"\xe0\x9f\xbf",
    "an overlong 4-byte form": b"\xf0\x8f\xbf\xbf",
    "zero in 2 bytes": b"\xc0\x80",
    **{f"the surrogate {low:x}": b"\xed" + bytes((low, 0x80)) for low in (0xA0, 0xAD, 0xAE, 0xAF, 0xB0, 0xBE, 0xBF)},
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
}

#: Section 8.1.
UTF_8 = {
    **{f"{name}, whole": echo(TEXT, text) for name, text in _VALID.items()},
    **{f"{name}, in parts": Case(parts(TEXT, text, 1), answered(TEXT, text)) for name, text in _VALID.items()},
    **{f"{name}, whole": Case(frame(TEXT, text), code=1007) for name, text in _INVALID.items()},
    **{f"{name}, in parts": Case(parts(TEXT, b"a" + text, 1), code=1007) for name, text in _INVALID.items()},
    **{f"{name}, binary": echo(BINARY, text) for name, text in _INVALID.items()},
    # It is seen before the message ends.
    **{f"{name}, no end": Case(frame(TEXT, text + b" ", fin=False), code=1007) for name, text in _INVALID.items()},
}


def _close(payload: bytes, code: int) -> Case:
    return Case(frame(CLOSE, payload), code=code)


#: Sections 5.5.1 and 7.4. The server sends the client's code back.
CLOSES = {
    "no code": _close(b"", 1005),
    "half a code": _close(b"\x03", 1002),
    "a code": _close(b"\x03\xe8", 1000),
    "a reason": _close(b"\x03\xe8bye", 1000),
    "a reason of 123 bytes": _close(b"\x03\xe8" + b"*" * 123, 1000),
    "a reason of 124 bytes": _close(b"\x03\xe8" + b"*" * 124, 1002),
    "a reason that is no UTF-8": _close(b"\x03\xe8\xce\xba\xed\xa0\x80", 1007),
    "twice": Case(frame(CLOSE, b"\x03\xe8") * 2, code=1000),
    "and then a ping": Case(frame(CLOSE, b"\x03\xe8") + frame(PING, b"a"), code=1000),
    "and then a text": Case(frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"a"), code=1000),
    "and then 256 KiB": Case(frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"a" * 2**18), code=1000),
    "within a message": Case(frame(TEXT, b"a", fin=False) + frame(CLOSE, b"\x03\xe8"), code=1000),
    "in parts": Case(frame(CLOSE, b"\x03\xe8", fin=False), code=1002),
    **{
        f"code {code}": _close(code.to_bytes(2, "big"), code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"code {code}, which is none": _close(code.to_bytes(2, "big"), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}


def _large(opcode: int, size: int, step: int) -> Case:
    payload = b"*" * size
    return Case(parts(opcode, payload, step), answered(opcode, payload))


#: Messages up to the default limit, whole and in parts.
LARGE = {
    f"opcode {opcode}, {size} bytes in parts of {step}": _large(opcode, size, step)
    for opcode, size, step in itertools.product(
        (TEXT, BINARY), (2**16, 2**18, 2**20), (2**6, 2**10, 2**12, 2**14, 2**20)
    )
    if size // step <= 2**12
} | {
    "one byte more than the limit": Case(frame(TEXT, b"", size=b"\xff" + (2**20 + 1).to_bytes(8, "big")), code=1009),
    "one byte more, in parts": Case(parts(BINARY, b"*" * (2**20 + 1), 2**16), code=1009),
}


def deflated(payload: bytes, level: int = 6) -> bytes:
    """A compressed message (RFC 7692, section 7.2.1)."""
    compressor = zlib.compressobj(level, wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed_parts(opcode: int, payload: bytes, count: int) -> bytes:
    """A compressed message in so many frames, of which the first has the bit."""
    size = max(1, -(-len(payload) // count))
    data = parts(opcode, payload, size)
    return bytes((data[0] | 0x40,)) + data[1:]


#: RFC 7692: payloads, by name. Some bytes are as good as random.
PAYLOADS = {
    "nothing": b"",
    "a word": b"hello",
    "1 KiB of text": b"the quick brown fox " * 51,
    "64 KiB of one byte": b"*" * 2**16,
    "64 KiB of noise": b"".join(zlib.crc32(bytes([n % 256, n // 256])).to_bytes(4, "big") for n in range(2**14)),
    "1 MiB of text": b"the quick brown fox " * 52_000,
}
