"""The handshake of a WebSocket: its checks, and the negotiation of compression (RFC 6455, section 4; RFC 7692)."""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hypercorn.protocol.events import Request
from hypercorn.protocol.ws_stream import Handshake as _Handshake
from wsproto.utilities import generate_accept_token

from .._asgi.protocol import fault_of_headers
from .request_head import Headers, joined

if TYPE_CHECKING:
    from .frames import BoundedDeflate
    from .websocket import WebSocketStream

VERSION = b"13"

#: The bytes of a key: a random number, base64-encoded.
_KEY_SIZE = 16

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

#: One extension with its parameters (RFC 6455, section 9.1). The value in quotation marks is a token, too.
_OFFER = re.compile(rf'[ \t]*({_TOKEN})((?:[ \t]*;[ \t]*{_TOKEN}(?:[ \t]*=[ \t]*(?:{_TOKEN}|"{_TOKEN}"))?)*)[ \t]*')
_PARAMETER = re.compile(rf';[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*"?({_TOKEN})"?)?')

_FLAGS = ("client_no_context_takeover", "server_no_context_takeover")
_CLIENT_WINDOW, _SERVER_WINDOW = "client_max_window_bits", "server_max_window_bits"
_WINDOWS = {str(bits) for bits in range(8, 16)}

#: zlib has no compressor with a window of 2**8 bytes.
_NO_WINDOW = "8"


class Handshake(_Handshake):
    """The headers of a handshake. Several lines of a header are one list, so that two keys or versions are invalid."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], http_version: str) -> None:
        super().__init__(list(joined((name.lower(), value) for name, value in headers).items()), http_version)

    def is_valid(self) -> bool:
        """Whether the handshake can be accepted."""
        # http1.py has seen the headers that ask for the upgrade; HTTP/2 has none, and no key.
        return self.version == VERSION and (self.http_version != "1.1" or _is_key(self.key))

    def answer(self, subprotocol: str | None, additional: Headers) -> tuple[int, Headers]:
        """The status and headers of the answer that accepts. Raises ValueError if the application may not send them."""
        # As hypercorn's accept(), which also makes parts of wsproto that are not used.
        headers: Headers = []
        if subprotocol is not None:
            if subprotocol not in (self.subprotocols or ()):
                raise ValueError(f"expected a subprotocol of {self.subprotocols}, got {subprotocol!r}")
            headers.append((b"sec-websocket-protocol", subprotocol.encode()))
        if self.key is not None:
            headers.append((b"sec-websocket-accept", generate_accept_token(self.key)))
        if self.http_version == "1.1":
            headers += [(b"upgrade", b"WebSocket"), (b"connection", b"Upgrade")]
        for name, value in additional:
            if name == b"sec-websocket-protocol" or name.startswith(b":"):
                raise ValueError(f"expected no header {name!r}: the server sends it")
            headers.append((name, value))
        if additional and (fault := fault_of_headers(additional)) is not None:
            raise ValueError(fault)
        self.accepted = True
        return 101 if self.http_version == "1.1" else 200, headers

    @property
    def refusal(self) -> list[tuple[bytes, bytes]]:
        """Further headers of the 400 (RFC 6455, section 4.4)."""
        return [] if self.version == VERSION else [(b"sec-websocket-version", VERSION)]


def switching_protocols(headers: Headers) -> bytes:
    """The response that opens a WebSocket over HTTP/1.1. Its headers have been checked."""
    return b"HTTP/1.1 101 \r\n%s\r\n" % b"".join([b"%s: %s\r\n" % header for header in headers])


def _is_key(key: bytes | None) -> bool:
    try:
        return len(a2b_base64(key or b"", strict_mode=True)) == _KEY_SIZE
    except NotBase64:
        return False


def scope_for(stream: WebSocketStream, request: Request) -> Any:
    """The scope of a WebSocket, as hypercorn makes it."""
    path, _, query = request.raw_path.partition(b"?")
    return {
        "type": "websocket",
        "asgi": {"spec_version": "2.3", "version": "3.0"},
        "scheme": stream.scheme,
        "http_version": request.http_version,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": stream.config.root_path,
        "headers": request.headers,
        "client": stream.client,
        "server": stream.server,
        "state": request.state.copy(),
        "subprotocols": stream.handshake.subprotocols or [],
        "extensions": {"websocket.http.response": {}},
    }


def agree(offers: Iterable[str], deflate: BoundedDeflate) -> bytes | None:
    """Accept the first offer of compression that can be kept; returns the header that says so.

    An offer with a parameter that is unknown, repeated or malformed is declined (RFC 7692, section 7.1), and the
    WebSocket goes without compression if there is no other.
    """
    for offer in offers:
        window = _window(offer)
        if window is not None:
            accepted = deflate.accept(f"{deflate.name}; {window}")
            return f"{deflate.name}; {accepted}".encode()
    return None


def _window(offer: str) -> str | None:
    """The parameter for the server's window, which may be empty; None to decline the offer."""
    matched = _OFFER.fullmatch(offer)
    if matched is None or matched[1] != "permessage-deflate":
        return None
    parameters = _PARAMETER.findall(matched[2])
    values = dict(parameters)
    if len(values) < len(parameters):
        return None
    for name, value in parameters:
        if name in _FLAGS:
            valid = not value
        elif name == _CLIENT_WINDOW:  # a hint: every client's window is taken
            valid = not value or value in _WINDOWS
        else:
            valid = name == _SERVER_WINDOW and value in _WINDOWS and value != _NO_WINDOW
        if not valid:
            return None
    return f"{_SERVER_WINDOW}={values[_SERVER_WINDOW]}" if _SERVER_WINDOW in values else ""
