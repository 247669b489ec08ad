"""The check of a WebSocket's Origin header (RFC 6454, RFC 6455 section 10.2).

Browsers let any page open a WebSocket to any server, with that server's cookies. The Origin header names the page's
site. The check runs before any application code, and refuses a header that it cannot parse.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from django.conf import settings
from django.utils.http import is_same_domain

from .._asgi.protocol import ASGIApplication, Receive, Scope, Send, describe
from .._asgi.responses import deny_websocket
from .._asgi.shortcut import note_shortcut, shortcut
from ..exceptions import ConfigurationError

__all__ = ["AllowedHostsOriginValidator", "Origin", "OriginValidator"]

logger = logging.getLogger("trio_channels.security")

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_OF_SITES = ("http", "https")
_ORIGIN = re.compile(r"(?:([a-z][a-z0-9+.-]*)://)?(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\]+)(?::([0-9]{1,5}))?")


class Origin(NamedTuple):
    """The origin of a page, or a pattern for origins.

    Args:
        scheme: in lower case; None in a pattern for any scheme.
        host: in lower case, IDNA-encoded; an IPv6 address is in brackets.
        port: the explicit port, or the scheme's; None if neither is known.
    """

    scheme: str | None
    host: str
    port: int | None


def parse_origin(text: str) -> Origin | None:
    """Parse an origin or a pattern; None if it is malformed: ``null``, a path, userinfo, a port out of range."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        return None
    scheme, host, digits = match.groups()
    port = int(digits) if digits else _DEFAULT_PORTS.get(scheme)
    if digits and not 0 < int(digits) < 65536:
        return None
    if not host.isascii():
        try:
            dot = "." if host.startswith(".") else ""
            host = dot + host.removeprefix(".").encode("idna").decode("ascii")
        except UnicodeError:
            return None
    return Origin(scheme, host, port)


class OriginValidator:
    """Denies WebSockets whose Origin header is not allowed.

    Args:
        application: the ASGI application behind the check.
        allowed_origins: patterns, or a function that returns them and is called for each connection. A pattern is a
            host (``example.com``), a host with its subdomains (``.example.com``), or ``*`` for any origin. A host may
            have a scheme, a port or both (``https://.example.com:8443``), which then must match too. A pattern without
            a scheme means ``http`` and ``https``; one with a scheme and no port means the scheme's default port.

    Unless ``*`` is allowed, a WebSocket is denied if it has no Origin header, several, ``null``, or a header that is
    not a scheme, a host and an optional port.
    """

    def __init__(
        self, application: ASGIApplication, allowed_origins: Iterable[str] | Callable[[], Iterable[str]]
    ) -> None:
        if isinstance(allowed_origins, str):
            raise ConfigurationError(
                f"allowed_origins must be a list of patterns; got the str {allowed_origins!r}. Put it into a list"
            )
        self.application = application
        self.allowed_origins = allowed_origins if callable(allowed_origins) else list(allowed_origins)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.allowed_origins!r} before {self.application!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application, or deny the WebSocket. Cancellation: the application's."""
        return await self._begin(scope, receive, send)

    def _begin(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        return (
            shortcut(self.application)(scope, receive, send) if self._passes(scope) else deny_websocket(receive, send)
        )

    def _passes(self, scope: Scope) -> bool:
        """Whether the handshake is allowed; logs why if it is not."""
        if scope["type"] != "websocket":
            raise ConfigurationError(
                f"an origin validator expects a 'websocket' scope; got {scope['type']!r}. Put it around the "
                f"'websocket' application of a ProtocolTypeRouter"
            )
        headers = [value for name, value in scope.get("headers", ()) if name.lower() == b"origin"]
        allowed = self.allows(headers)
        if not allowed:
            logger.warning("denied %s: %s", describe(scope), self._reason(headers))
        return allowed

    def _reason(self, headers: list[bytes]) -> str:
        if not headers:
            return "it has no Origin header, as clients other than browsers: route those outside of this check"
        given = b", ".join(headers)[:200]
        where = "the setting ALLOWED_HOSTS" if self.allowed_origins is _allowed_hosts else "allowed_origins"
        return f"its Origin {given!r} is not allowed: if it is of a page of yours, add its host to {where}"

    def allows(self, headers: list[bytes]) -> bool:
        """Whether a handshake with these Origin headers is allowed."""
        patterns = list(self.allowed_origins() if callable(self.allowed_origins) else self.allowed_origins)
        if "*" in patterns:
            return True
        origin = parse_origin(headers[0].decode("latin-1")) if len(headers) == 1 else None
        return origin is not None and origin.scheme is not None and self.valid_origin(origin, patterns)

    def valid_origin(self, origin: Origin, patterns: list[str]) -> bool:
        """Whether a well-formed origin matches one of the patterns. Override it for rules of your own."""
        return any(_matches(origin, pattern) for pattern in patterns)


note_shortcut(OriginValidator.__call__, OriginValidator._begin)


def _matches(origin: Origin, pattern: str) -> bool:
    wanted = parse_origin(pattern)
    if wanted is None or not is_same_domain(origin.host, wanted.host):
        return False
    if wanted.scheme is None:
        # A page of another scheme, such as an extension's, chooses its host itself.
        return origin.scheme in _OF_SITES and wanted.port in (None, origin.port)
    return (wanted.scheme, wanted.port) == (origin.scheme, origin.port)


def AllowedHostsOriginValidator(application: ASGIApplication) -> OriginValidator:  # noqa: N802 - Channels' name
    """An origin validator for the hosts of the setting ``ALLOWED_HOSTS``, which is read for each connection.

    With ``DEBUG`` and an empty ``ALLOWED_HOSTS`` it allows localhost, as Django's host check does.
    """
    return OriginValidator(application, _allowed_hosts)


def _allowed_hosts() -> list[str]:
    hosts: list[str] = list(settings.ALLOWED_HOSTS)
    return hosts or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
