"""The head of an HTTP/1.1 request, after h11: its version, method, target and Host (RFC 9112, section 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import h11
from hypercorn.config import Config

Headers = list[tuple[bytes, bytes]]

#: RFC 3986, section 3.2.2, without a user: a name or an IPv4 address, or an IPv6 address in brackets; then a port.
_AUTHORITY = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")

_ABSOLUTE = re.compile(rb"https?://([^/?#:][^/?#]*)(.*)", re.IGNORECASE)

_EMPTY_LINES = re.compile(rb"(?:\r?\n)+")


class RequestHead(NamedTuple):
    """What an application sees of a head, and whether it asks for a WebSocket."""

    target: bytes
    headers: Headers
    http_version: str
    upgrades: bool


def check(request: h11.Request, config: Config) -> RequestHead:
    """Check a head. Raises ``h11.RemoteProtocolError`` with the status to answer with."""
    size = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
    if size > config.h11_max_incomplete_size:  # h11 takes a longer head if all of it comes at once
        raise _error(f"expected a head of at most {config.h11_max_incomplete_size} bytes, got {size}", 431)
    if not request.http_version.startswith(b"1."):
        raise _error(f"expected HTTP/1.1, got HTTP/{request.http_version.decode()}", 505)
    if request.method != request.method.upper():
        # Methods are case-sensitive, and an application gets them in upper case: "get" is none that it knows.
        raise _error(f"expected a method in upper case, got {request.method!r}", 501)
    old = request.http_version == b"1.0"
    fields = joined(request.headers)
    _check_framing(fields, old)
    host, target = _split(request)
    if host is None:
        host = fields.get(b"host")
        if host is None and not old:
            raise _error("expected a Host header, got none")  # h11 asks for it in HTTP/1.1, but not in HTTP/1.2
    if host is not None and not _AUTHORITY.fullmatch(host):
        raise _error(f"expected a host name and a port, got {host!r}")
    headers = request.headers.raw_items() if config.h11_pass_raw_headers else list(request.headers)
    if host is not None and host != fields.get(b"host"):
        # RFC 9112, section 3.2.2: the host of an absolute target goes before the header.
        headers = [(b"host", host), *((name, value) for name, value in headers if name.lower() != b"host")]
    # An upgrade is not for HTTP/1.0 (RFC 9110, section 7.8).
    upgrades = not old and request.method == b"GET" and _asks_for_websocket(fields)
    return RequestHead(target, headers, "1.0" if old else "1.1", upgrades)


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
    """D20: a proxy and this server must not see different ends of the body (request smuggling)."""
    if b"transfer-encoding" in fields:
        if b"content-length" in fields:
            raise _error("expected Content-Length or Transfer-Encoding, got both in one request")
        if old:  # RFC 9112, section 6.1
            raise _error("expected Content-Length in a request of HTTP/1.0, got Transfer-Encoding")


def _split(request: h11.Request) -> tuple[bytes | None, bytes]:
    """The host of the target, if the target has one, and the path with the query."""
    target = bytes(request.target)
    if target.startswith(b"/") or request.method == b"CONNECT" or (target == b"*" and request.method == b"OPTIONS"):
        return None, target
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
