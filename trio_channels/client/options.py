"""The options of a socket, and the address that they make."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..exceptions import ConfigurationError
from .transport import Address

#: The version of the protocol, in the query.
VERSION = {"vsn": "2.0.0"}

PATH_END = "/websocket"
SUBPROTOCOL, TOKEN_PREFIX = "phoenix", "base64url.bearer.phx."


@dataclass(frozen=True)
class Options:
    """What :func:`connect` was given."""

    url: str
    params: Mapping[str, str] | Callable[[], Mapping[str, str]]
    token: str | Callable[[], str | None] | None
    headers: Sequence[tuple[bytes, bytes]]
    ssl_context: ssl.SSLContext | None
    timeout: float
    heartbeat: float
    back_off: Callable[[int, int | None], float]
    is_final: Callable[[int], bool]
    max_waiting: int
    capacity: int
    max_message_size: int

    def __post_init__(self) -> None:
        for name in ("timeout", "heartbeat", "max_waiting", "capacity", "max_message_size"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(f"{name} must be a number above 0; got {value!r}")
        self._split()

    def address(self) -> Address:
        """Where to connect, with the parameters of this moment."""
        scheme, host, port, netloc, path, query = self._split()
        params = self.params() if callable(self.params) else self.params
        query = urlencode([*parse_qsl(query, keep_blank_values=True), *{**params, **VERSION}.items()])
        tls = self.ssl_context or ssl.create_default_context() if scheme == "wss" else None
        return Address(host, port, netloc, f"{path}?{query}", tls)

    def subprotocols(self) -> list[str]:
        """The subprotocols that carry the token of this moment."""
        token = self.token() if callable(self.token) else self.token
        if token is None:
            return []
        return [SUBPROTOCOL, TOKEN_PREFIX + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")]

    @property
    def place(self) -> str:
        """The address for log lines, without what may be secret."""
        scheme, _, _, netloc, path, _ = self._split()
        return f"{scheme}://{netloc}{path}"

    def _split(self) -> tuple[str, str, int, str, str, str]:
        try:
            parts = urlsplit(self.url)
            port = parts.port or (443 if parts.scheme == "wss" else 80)
        except ValueError as error:
            raise ConfigurationError(f"expected an address such as ws://127.0.0.1:8000/socket: {error}") from None
        if parts.scheme not in ("ws", "wss") or not parts.hostname or "@" in parts.netloc or parts.fragment:
            raise ConfigurationError(
                f"expected an address such as ws://127.0.0.1:8000/socket, or wss://, without a user and a fragment; "
                f"got {self.url!r:.300}"
            )
        path = parts.path.rstrip("/")
        return (
            *(parts.scheme, parts.hostname, port, parts.netloc),
            *(path if path.endswith(PATH_END) else path + PATH_END, parts.query),
        )
