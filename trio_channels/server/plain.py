"""Plain exchanges of HTTP/1.1, without h11, which takes longer over a request and its response than this whole server.

The rules:

- A plain request has no field that concerns the connection, unless it asks for a WebSocket. Its head came whole, in one
  read. The length of its body is known, and nothing came behind that.
- A plain response says how long its body is. It comes in one message, after the request's body.
- All else is h11's, also all that is not valid. h11 does not see a plain exchange, unless that turns out not to be
  plain: then h11 is told of it, and goes on (:meth:`Exchange.tell`).
"""

from __future__ import annotations

import re

import h11
from hypercorn.utils import suppress_body

from .request_head import AUTHORITY, Headers, RequestHead

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"

_REQUEST = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*) HTTP/1\.1\r\n((?:%s:[\t -~\x80-\xff]*\r\n)+)\r\n" % _NAME
)

#: Fields that concern the connection: Connection may say that it goes on, or with Upgrade that it becomes a WebSocket.
#: Host and Content-Length may be there once.
_OF_REQUESTS = frozenset((b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"))

#: The fields that ask for a WebSocket, as clients write them.
_UPGRADES = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"connection", b"keep-alive, upgrade"))

#: The lines of these fields are kept: many clients send the same, and no secrets. An open WebSocket keeps its headers,
#: and takes 500 bytes less if they are shared.
_COMMON = frozenset(
    b"accept accept-encoding accept-language cache-control connection content-length content-type host origin pragma "
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site sec-websocket-extensions sec-websocket-version upgrade user-agent "
    b"x-forwarded-proto".split()
)

#: Of the lines of these fields only the names are shared.
_SHARED = {name: name for name in b"authorization cookie referer sec-websocket-key sec-websocket-protocol".split()}

#: Bytes of a line that is kept, and the number of such lines.
_SHORT, _LINES = 150, 500

#: The values are without space around them.
_FIELDS = re.compile(rb"(?:%s: (?:[!-~\x80-\xff]+(?:[ \t]+[!-~\x80-\xff]+)*)?\r\n)+" % _NAME)
_OF_RESPONSES = re.compile(
    rb"^(connection|content-length|host|transfer-encoding): (.*)\r$", re.IGNORECASE | re.MULTILINE
)

_LENGTH = re.compile(rb"^(content-length:).*\r$", re.IGNORECASE | re.MULTILINE)

#: Digits of a Content-Length.
_DIGITS = 15


class Exchange:
    """A plain request, of whose body so many bytes are to come, and its response as far as that is known."""

    __slots__ = ("_body", "_head", "_headers", "_length", "_status", "complete", "held", "method", "remaining")

    def __init__(self, head: bytes, method: str, remaining: int = 0) -> None:
        self._head = head
        self.method = method
        self.remaining = remaining
        self._status = 0
        self._headers: Headers = []
        self._length = 0
        self._body = b""
        self.held = b""  # the head of the response
        self.complete = False  # the response is being written

    def __repr__(self) -> str:
        return f"<Exchange {self.method} {self._status or 'unanswered'}{', complete' if self.complete else ''}>"

    def begin(self, status: int, headers: Headers) -> bool:
        """Take the head of a response, which waits for its body; False, and nothing is taken, if it is not plain."""
        if self.remaining:
            return False
        fields = b"".join([b"%s: %s\r\n" % field for field in headers])
        # Each field is one line: no value adds another. Each name is one: no colon in it ends it before.
        if not 200 <= status <= 999 or fields.count(b"\n") != len(headers) or not _FIELDS.fullmatch(fields):
            return False
        if b":" in b"".join([name for name, _ in headers]):
            return False
        without_body = suppress_body(self.method, status)
        match _OF_RESPONSES.findall(fields):
            case [(name, length)] if name.lower() == b"content-length" and length.isdigit() and len(length) <= _DIGITS:
                self._length = 0 if without_body else int(length)
            case [] if without_body and self.method != "HEAD":
                self._length = 0
            case _:
                return False
        self.held = b"HTTP/1.1 %d \r\n%s\r\n" % (status, fields)
        self._status, self._headers = status, headers
        return True

    def end(self, body: bytes) -> bytes | None:
        """The whole response; None, and the exchange is not complete, unless its body has the length that was said."""
        if not self.held or len(body) != self._length:
            return None
        self._body = body
        self.complete = True
        return self.held + body

    def tell(self, parser: h11.Connection) -> bytes:
        """Have h11 go on; returns the head of a response that has been taken, and is not written."""
        # As if the part of the body that has come had not been announced.
        parser.receive_data(_LENGTH.sub(b"\\1 %d\r" % self.remaining, self._head))
        parser.next_event()
        if not self.remaining:
            parser.next_event()  # the end of the request
        if not self.held:
            return b""
        head = parser.send(h11.Response(headers=self._headers, status_code=self._status))
        if not self.complete:
            return head
        if self._body:
            parser.send(h11.Data(data=self._body))
        parser.send(h11.EndOfMessage())
        return b""


def plain_request(data: bytes, longest: int) -> tuple[Exchange, RequestHead, bytes] | None:
    """A plain request, its head, of so many bytes at most, and what came of its body; None if it is not plain."""
    found = _REQUEST.match(data)
    if found is None or found.end() > longest:
        return None
    method, target, lines = found.groups()
    host = length = None
    upgrades: list[bytes] = []
    headers: Headers = []
    for line in lines.splitlines():
        field = _known.get(line) or _field(line)
        name, value = field
        if name in _OF_REQUESTS:
            if name == b"host" and host is None:
                host = value
            elif name == b"content-length" and length is None and value.isdigit() and len(value) <= _DIGITS:
                length = int(value)
            elif (name, value.lower()) in _UPGRADES:
                upgrades.append(name)
            elif name != b"connection" or value.lower() != b"keep-alive":
                return None
        headers.append(field)
    rest = data[found.end() :]
    if host is None or not AUTHORITY.fullmatch(host) or len(rest) > (length or 0):
        return None
    if upgrades and (method != b"GET" or length is not None or sorted(upgrades) != [b"connection", b"upgrade"]):
        return None
    head = RequestHead(method.decode("ascii"), target, headers, "1.1", bool(upgrades), has_body=length is not None)
    return Exchange(found.group(), head.method, length or 0), head, rest


#: The fields of lines that are kept.
_known: dict[bytes, tuple[bytes, bytes]] = {}


def _field(line: bytes) -> tuple[bytes, bytes]:
    """The field of a line, which is kept if other clients may send the same."""
    name, _, value = line.partition(b":")
    name = name.lower()
    field = _SHARED.get(name, name), value.strip()
    if name in _COMMON and len(line) <= _SHORT:
        if len(_known) >= _LINES:
            _known.clear()
        _known[line] = field
    return field


class Several:
    """Parts of a body, for h11, which asks only for their length."""

    def __init__(self, parts: list[bytes]) -> None:
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size
