"""Messages: RFC 9113, section 8, and RFC 8441. Header compression: RFC 7541."""

from __future__ import annotations

from h2.errors import ErrorCodes as E

from .cases import (
    BLOCK,
    COMPRESSION,
    GET,
    OPEN,
    PROTOCOL,
    Answers,
    Case,
    Ends,
    Lives,
    Resets,
    encoded,
    first,
    literal,
    post,
    with_,
    without,
)
from .raw import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    frame,
    headers,
    request,
)

CONNECT = [(":method", "CONNECT"), (":authority", "localhost")]
TUNNEL = [*request(method="CONNECT"), ("sec-websocket-version", "13")]


def tunnel(protocol: str) -> bytes:
    return headers(1, [(":protocol", protocol), *TUNNEL], END_HEADERS)


def trailers(*fields: tuple[str, str], flags: int = END_STREAM | END_HEADERS) -> bytes:
    return OPEN + frame(DATA, 0, 1, b"test") + headers(1, fields, flags)


HTTP = [
    Case("8.1", "GET", GET, Answers()),
    Case("8.1", "HEAD", headers(1, request(method="HEAD")), Answers()),
    Case("8.1", "POST", post(b"test"), Answers()),
    Case("8.1", "POST with trailers", trailers(("x-test", "ok")), Answers()),
    Case("8.1", "trailers without the end", trailers(("x-test", "ok"), flags=END_HEADERS), PROTOCOL),
    Case("8.1", "response by a client", headers(1, [(":status", "200")]), PROTOCOL),
    Case("8.1.1", "body shorter than its length", post(b"test", length=5), PROTOCOL),
    Case("8.1.1", "body longer than its length", post(b"test", length=1), PROTOCOL),
    Case("8.1.1", "several parts with another length", post(b"te", b"st", length=1), PROTOCOL),
    Case("8.1.1", "no body with a length", with_(("content-length", "1")), Resets(E.PROTOCOL_ERROR)),
    Case("8.1.1", "length that is no number", post(b"test", length=-4), PROTOCOL),
    Case("8.2.1", "upper case in a name", with_(("X-TEST", "ok")), PROTOCOL),
    Case("8.2.1", "space in a name", with_(("x test", "ok")), PROTOCOL),
    Case("8.2.1", "colon in a name", with_(("x:test", "ok")), PROTOCOL),
    Case("8.2.1", "empty name", with_(("", "ok")), PROTOCOL),
    Case("8.2.1", "NUL in a value", with_(("x-test", "o\0k")), PROTOCOL),
    Case("8.2.1", "line break in a value", with_(("x-test", "o\nk")), PROTOCOL),
    Case("8.2.1", "carriage return in a value", with_(("x-test", "o\rk")), PROTOCOL),
    Case("8.2.1", "space before a value", with_(("x-test", " ok")), PROTOCOL),
    Case("8.2.1", "tab after a value", with_(("x-test", "ok\t")), PROTOCOL),
    Case("8.2.2", "Connection", with_(("connection", "keep-alive")), PROTOCOL),
    Case("8.2.2", "Keep-Alive", with_(("keep-alive", "1")), PROTOCOL),
    Case("8.2.2", "Proxy-Connection", with_(("proxy-connection", "close")), PROTOCOL),
    Case("8.2.2", "Transfer-Encoding", with_(("transfer-encoding", "chunked")), PROTOCOL),
    Case("8.2.2", "Upgrade", with_(("upgrade", "websocket")), PROTOCOL),
    Case("8.2.2", "TE other than trailers", with_(("te", "trailers, deflate")), PROTOCOL),
    Case("8.2.2", "TE of trailers", with_(("te", "trailers")), Answers()),
    Case("8.2.3", "cookies in several fields", with_(("cookie", "a=1"), ("cookie", "b=2")), Answers()),
    Case("8.3", "unknown pseudo-field", first((":test", "ok")), PROTOCOL),
    Case("8.3", "pseudo-field of a response", first((":status", "200")), PROTOCOL),
    Case("8.3", "pseudo-field in trailers", trailers((":method", "GET")), PROTOCOL),
    Case("8.3", "pseudo-field after a field", headers(1, [("x-test", "ok"), *request()]), PROTOCOL),
    Case("8.3.1", "empty path", headers(1, request("")), PROTOCOL),
    Case("8.3.1", "no method", headers(1, without(":method")), PROTOCOL),
    Case("8.3.1", "no scheme", headers(1, without(":scheme")), PROTOCOL),
    Case("8.3.1", "no path", headers(1, without(":path")), PROTOCOL),
    Case("8.3.1", "no authority and no host", headers(1, without(":authority")), PROTOCOL),
    Case("8.3.1", "host instead of the authority", headers(1, [*without(":authority"), ("host", "a")]), Answers()),
    Case("8.3.1", "host that is not the authority", with_(("host", "other")), PROTOCOL),
    Case("8.3.1", "two hosts", with_(("host", "localhost"), ("host", "localhost")), PROTOCOL),
    Case("8.3.1", "two methods", first((":method", "GET")), PROTOCOL),
    Case("8.3.1", "two schemes", first((":scheme", "http")), PROTOCOL),
    Case("8.3.1", "two paths", first((":path", "/")), PROTOCOL),
    Case("8.3.1", "two authorities", first((":authority", "localhost")), PROTOCOL),
    Case("8.3.1", "asterisk", headers(1, request("*", "OPTIONS")), Answers()),
    Case("8.5", "CONNECT with a path", headers(1, request(method="CONNECT")), PROTOCOL),
    Case("8.5", "CONNECT", headers(1, CONNECT), Answers(400)),
    Case("RFC 8441", "WebSocket", tunnel("websocket"), Lives()),
    Case("RFC 8441", "WebSocket, as HAProxy spells it", tunnel("WebSocket"), Lives()),
    Case("RFC 8441", "another protocol", tunnel("connect-udp"), Answers(501)),
    Case("RFC 8441", "protocol of a GET", first((":protocol", "websocket")), PROTOCOL),
    Case("RFC 8441", "WebSocket without a path", headers(1, [*CONNECT, (":protocol", "websocket")]), PROTOCOL),
    Case("8.6", "fields of 64 KiB", with_(("x-test", "x" * 12_000)), Answers()),
]

#: A literal field: its name in Huffman's code; the value is to follow.
HUFFMAN = b"\x00\x85\xf2\xb2\x4a\x84\xff"

HPACK = [
    Case("2.3.3", "index beyond the tables", encoded(b"\xfe"), COMPRESSION),
    Case("2.3.3", "name's index beyond the tables", encoded(b"\x7f\x20\x01x"), COMPRESSION),
    Case("4.2", "change of the table's size at the end", encoded(b"\x20"), COMPRESSION),
    Case("4.2", "change of the table's size at the start", frame(HEADERS, 5, 1, b"\x20" + BLOCK), Answers()),
    Case("4.2", "two changes of the table's size", frame(HEADERS, 5, 1, b"\x20\x3f\xe1\x1f" + BLOCK), Answers()),
    Case("5.1", "integer without an end", encoded(b"\x7f" + b"\xff" * 20), COMPRESSION),
    Case(
        "5.2",
        "Huffman padding of more than 7 bits",
        encoded(HUFFMAN + b"\x84\x49\x50\x9f\xff"),
        COMPRESSION,
    ),
    Case("5.2", "Huffman padding with zeros", encoded(HUFFMAN + b"\x83\x49\x50\x90"), COMPRESSION),
    Case("5.2", "Huffman with EOS", encoded(HUFFMAN + b"\x87\x49\x51\xff\xff\xff\xfa\x7f"), COMPRESSION),
    Case("5.2", "string longer than its block", encoded(b"\x00\x7fx"), COMPRESSION),
    Case("6.1", "index 0", encoded(b"\x80"), COMPRESSION),
    Case("6.1", "indexed field", encoded(b"\x93"), Answers()),
    Case("6.2.1", "literal with indexing", encoded(literal(b"x-a", b"b", b"\x40") + b"\xbe"), Answers()),
    Case("6.2.2", "literal without indexing", encoded(literal(b"x-a", b"b", b"\x00")), Answers()),
    Case("6.2.3", "literal that is never indexed", encoded(literal(b"x-a", b"b", b"\x10")), Answers()),
    Case("6.2.1", "indexed name", encoded(b"\x53\x01b"), Answers()),
    Case("6.3", "table larger than the setting", frame(HEADERS, 5, 1, b"\x3f\xff\xff\x7f" + BLOCK), COMPRESSION),
    Case(
        "7.1",
        "bomb",
        frame(HEADERS, 5, 1, BLOCK + literal(b"x-a", b"b" * 120, b"\x40") + b"\xbe" * 2_000),
        Ends(E.ENHANCE_YOUR_CALM),
    ),
]
