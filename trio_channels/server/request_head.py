"""The head of an HTTP/1.1 request, after h11: its version, method, target and Host (RFC 9112, section 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import h11
from hypercorn.config import Config

Headers = list[tuple[bytes, bytes]]

#: RFC 3986, section 3.2.2, without a user: a name or an IPv4 address, or an IPv6 address in brackets; then a port.
AUTHORITY = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")

_ABSOLUTE = re.compile(rb"https?://([^/?#:][^/?#]*)(.*)", re.IGNORECASE)

_EMPTY_LINES = re.compile(rb"(?:\r?\n)+")


class RequestHead(NamedTuple):
    """What an application sees of a head, whether it asks for a WebSocket, and whether a body follows it."""

    method: str
    target: bytes
    headers: Headers
    http_version: str
    upgrades: bool
    has_body: bool


def check(request: h11.Request, config: Config) -> RequestHead:
    """Check a head. Raises ``h11.RemoteProtocolError`` with the status to answer with."""
    headers = list(request.headers)
    size = len(request.target)
    fields: dict[bytes, bytes] = {}  # as joined() makes them
    for name, value in headers:
        size += len(name) + len(value)
        fields[name] = fields[name] + b"," + value if name in fields else value
    if size > config.h11_max_incomplete_size:  # h11 takes a longer head if all of it comes at once
        raise _error(f"expected a head of at most {config.h11_max_incomplete_size} bytes, got {size}", 431)
    if not request.http_version.startswith(b"1."):
        raise _error(f"expected HTTP/1.1, got HTTP/{request.http_version.decode()}", 505)
    if request.method != request.method.upper():
        # Methods are case-sensitive, and an application gets them in upper case: "get" is none that it knows.
        raise _error(f"expected a method in upper case, got {request.method!r}", 501)
    old = request.http_version == b"1.0"
    chunked = b"transfer-encoding" in fields
    if chunked:
        _check_framing(fields, old)
    host, target = fields.get(b"host"), bytes(request.target)
    if not target.startswith(b"/"):
        host, target = _split(request.method, target, host)
    if host is None and not old:
        raise _error("expected a Host header, got none")  # h11 asks for it in HTTP/1.1, but not in HTTP/1.2
    if host is not None and not AUTHORITY.fullmatch(host):
        raise _error(f"expected a host name and a port, got {host!r}")
    if config.h11_pass_raw_headers:
        headers = request.headers.raw_items()
    if host is not None and host != fields.get(b"host"):
        # RFC 9112, section 3.2.2: the host of an absolute target goes before the header.
        headers = [(b"host", host), *((name, value) for name, value in headers if name.lower() != b"host")]
    # An upgrade is not for HTTP/1.0 (RFC 9110, section 7.8).
    upgrades = b"upgrade" in fields and not old and request.method == b"GET" and _asks_for_websocket(fields)
    has_body = chunked or b"content-length" in fields
    return RequestHead(request.method.decode("ascii"), target, headers, "1.0" if old else "1.1", upgrades, has_body)


def empty_lines(data: bytes) -> int:
    """The length of the empty lines before a request line, which are ignored (RFC 9112, section 2.2)."""
    found = _EMPTY_LINES.match(data)
    return found.end() if found else 0


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The fields by name; of several with the same name, one list (RFC 9110, section 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        fields[name] = fields[name] + b"," + value if name in fields else value
    return fields


def _check_framing(fields: dict[bytes, bytes], old: bool) -> None:
    """D20: a proxy and this server must not see different ends of a chunked body (request smuggling)."""
    if b"content-length" in fields:
        raise _error("expected Content-Length or Transfer-Encoding, got both in one request")
    if old:  # RFC 9112, section 6.1
        raise _error("expected Content-Length in a request of HTTP/1.0, got Transfer-Encoding")


def _split(method: bytes, target: bytes, header: bytes | None) -> tuple[bytes | None, bytes]:
    """The host and the path with the query of a target that is no path; without a host, that of the header."""
    if method == b"CONNECT" or (target == b"*" and method == b"OPTIONS"):
        return header, target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise _error(f"expected a target that begins with '/' or 'http://', got {target[:100]!r}")
    host, rest = absolute.groups()
    return host, rest if rest.startswith(b"/") else b"/" + rest


def _asks_for_websocket(fields: dict[bytes, bytes]) -> bool:
    return b"websocket" in _tokens(fields.get(b"upgrade")) and b"upgrade" in _tokens(fields.get(b"connection"))


def _tokens(value: bytes | None) -> list[bytes]:
    return [token.strip() for token in value.lower().split(b",")] if value else []


def _error(message: str, status: int = 400) -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError(message, error_status_hint=status)
