"""The client behind a reverse proxy: its address, scheme and host, from the headers of trusted proxies.

The rules:

- Headers count only if the peer, the other end of the socket, is a trusted proxy. From any other peer the headers are
  removed from the scope, so that no inner application believes them; so are ``X-Forwarded-Port`` and ``X-Real-IP``.
- One family of headers is read, the one that the proxy sets. A header that the proxy does not set may be the client's.
- Addresses are read from the right, the end that the nearest proxy wrote. The first address that is not a trusted proxy
  is the client; all addresses to the left of it are the client's own claim. An address that cannot be parsed ends the
  search.
- The scheme and the host are the values at the client's position.

Sources: RFC 7239 for ``Forwarded``; the ``X-Forwarded-`` headers have no standard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Literal, NamedTuple

from ._asgi.protocol import ASGIApplication, Receive, Scope, Send
from .exceptions import ConfigurationError
from .middleware import BaseMiddleware

__all__ = ["ProxyHeadersMiddleware"]

_Address = IPv4Address | IPv6Address
Headers = list[tuple[bytes, bytes]]

#: The addresses of a proxy on the same machine.
LOCALHOST = ("127.0.0.0/8", "::1")

_FAMILIES = {
    "x-forwarded": (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"),
    "forwarded": (b"forwarded",),
}
#: Removed even from a trusted proxy: Django has a setting that reads the first, and much code reads the second.
_NEVER_READ = (b"x-forwarded-port", b"x-real-ip")

_ALL_NAMES = frozenset([name for names in _FAMILIES.values() for name in names] + [*_NEVER_READ])

_SCHEMES = {
    "http": {"http": "http", "https": "https", "ws": "http", "wss": "https"},
    "websocket": {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"},
}

#: A valid Host header: a name, an IPv4 address or an IPv6 address in brackets, with or without a port.
_HOST = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)

#: An address with or without a port; an IPv6 address with a port has brackets.
_NODE = re.compile(r"\[([0-9a-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9a-f:.]+)", re.IGNORECASE)

#: RFC 7239, section 4: name=value, the value a token or a quoted string, and the separator that follows.
_PAIR = re.compile(
    r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)|"((?:[^"\\]|\\.)*)")[ \t]*([;,]|$)"""
)


class _Claims(NamedTuple):
    """The values of the headers, in the order of the proxies, the nearest last; "" for a missing value."""

    addresses: list[str]
    schemes: list[str]
    hosts: list[str]


class ProxyHeadersMiddleware(BaseMiddleware):
    """Puts the client's address, scheme and optionally host into the scope, as trusted proxies report them.

    Args:
        inner: the ASGI application; put this middleware around the outermost router.
        trusted: the proxies: addresses, networks (``10.0.0.0/8``), ``unix`` for every peer on a unix socket, or ``*``
            for every peer. With ``*`` only the peer counts as a proxy: the last address of the header is the client.
            By default proxies on the same machine.
        headers: the headers that the proxy sets: ``x-forwarded`` (``X-Forwarded-For``, ``-Proto``, ``-Host``) or
            ``forwarded`` (RFC 7239).
        host: whether to replace the ``Host`` header too; proxies usually pass it on unchanged.

    Raises:
        ConfigurationError: an argument has none of these values.

    A proxy must set each header that it is trusted for, or append to it: otherwise a header of the client would count
    as the proxy's. A port that the proxy does not report is 0.
    """

    def __init__(
        self,
        inner: ASGIApplication,
        trusted: Iterable[str] = LOCALHOST,
        *,
        headers: Literal["x-forwarded", "forwarded"] = "x-forwarded",
        host: bool = False,
    ) -> None:
        super().__init__(inner)
        if isinstance(trusted, str):
            raise ConfigurationError(f"trusted must be a list of addresses and networks; got the str {trusted!r}")
        if headers not in _FAMILIES:
            raise ConfigurationError(f"headers must be one of {', '.join(map(repr, _FAMILIES))}; got {headers!r}")
        entries = list(trusted)
        self._trusts_all = "*" in entries
        self._trusts_unix = "unix" in entries
        self._networks = [_network(entry) for entry in entries if entry not in ("*", "unix")]
        self._family = headers
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application; its scope is a changed copy if the request has such headers.

        Cancellation: the application's.
        """
        if scope["type"] not in _SCHEMES or not any(_is_claim(name) for name, _ in scope["headers"]):
            return await self.inner(scope, receive, send)
        trusted = self._trusts_peer(scope.get("client"))
        # Proxies write no underscores, but CGI and Django before 5.2.13 read them as hyphens.
        kept = [each for each in scope["headers"] if not _is_claim(each[0]) or (trusted and b"_" not in each[0])]
        changed = {**scope, "headers": kept}
        return await self.inner(self._rewritten(changed) if trusted else changed, receive, send)

    def _trusts_peer(self, client: Any) -> bool:
        if self._trusts_all:
            return True
        if not client:  # a unix socket has no address
            return self._trusts_unix
        address = _address(client[0])
        return address is not None and self._trusts(address)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)

    def _rewritten(self, scope: Scope) -> Scope:
        claims = _READERS[self._family](scope["headers"])
        client, position = self._client(claims.addresses)
        changed = dict(scope)
        if client is not None:
            changed["client"] = client
        scheme = _SCHEMES[scope["type"]].get(_at(claims.schemes, position).lower())
        if scheme is not None:
            changed["scheme"] = scheme
        host = _at(claims.hosts, position)
        if self._host and _HOST.fullmatch(host):
            others = [header for header in scope["headers"] if header[0] != b"host"]
            changed["headers"] = [(b"host", host.encode("ascii")), *others]
        return changed

    def _client(self, addresses: list[str]) -> tuple[tuple[str, int] | None, int]:
        """The client's address, if the proxies report one, and its position, counted from the right."""
        found: tuple[str, int] | None = None
        position = 1
        for number, text in enumerate(reversed(addresses), start=1):
            node = _node(text)
            if node is None:
                break
            address, port = node
            found, position = (str(address), port), number
            if not self._trusts(address):
                break
        return found, position


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(entry)
    except ValueError as error:
        raise ConfigurationError(
            f"trusted must hold IP addresses, networks, 'unix' or '*'; got {entry!r} ({error})"
        ) from None


def _address(text: str) -> _Address | None:
    """An IP address, or None; an IPv4 address mapped to IPv6 becomes IPv4 again."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _node(text: str) -> tuple[_Address, int] | None:
    match = _NODE.fullmatch(text)
    if match is None:
        return None
    bracketed, bracketed_port, ipv4, ipv4_port, ipv6 = match.groups()
    address = _address(bracketed or ipv4 or ipv6)
    port = int(bracketed_port or ipv4_port or 0)
    return None if address is None or port > 65535 else (address, port)


def _at(values: list[str], position: int) -> str:
    """The value at a position counted from the right; of a shorter list the first, set by the outermost proxy."""
    return values[-min(position, len(values))] if values else ""


def _is_claim(name: bytes) -> bool:
    return name.replace(b"_", b"-") in _ALL_NAMES


def _x_forwarded(headers: Headers) -> _Claims:
    claims: dict[bytes, list[str]] = {name: [] for name in _FAMILIES["x-forwarded"]}
    for name, value in headers:
        if name in claims:
            claims[name] += [part.strip() for part in value.decode("latin-1").split(",")]
    return _Claims(*claims.values())


def _forwarded(headers: Headers) -> _Claims:
    elements: list[dict[str, str]] = []
    for name, value in headers:
        if name == b"forwarded":
            parsed = _elements(value.decode("latin-1"))
            # A quotation mark left open by a client would swallow the proxy's part: a malformed line is ignored, and so
            # are all lines before it.
            elements = [] if parsed is None else elements + parsed
    return _Claims(
        [element.get("for", "") for element in elements],
        [element.get("proto", "") for element in elements],
        [element.get("host", "") for element in elements],
    )


def _elements(line: str) -> list[dict[str, str]] | None:
    """The elements of a ``Forwarded`` header, or None if it is malformed."""
    elements: list[dict[str, str]] = [{}]
    position = 0
    while True:
        match = _PAIR.match(line, position)
        if match is None:
            return None
        name, token, quoted, separator = match.groups()
        elements[-1].setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if token is None else token)
        position = match.end()
        if not separator:
            return elements
        if separator == ",":
            elements.append({})


_READERS = {"x-forwarded": _x_forwarded, "forwarded": _forwarded}
