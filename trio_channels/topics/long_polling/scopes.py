"""The scope of a session: the request that opens it, as the handshake of a WebSocket."""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

from ..._asgi.protocol import Scope
from ...exceptions import ConfigurationError
from ..socket import SUBPROTOCOL, TOKEN_PREFIX

_LONGPOLL, _WEBSOCKET = "/longpoll", "/websocket"

#: Headers of the request that say nothing of the session.
_OF_REQUEST = frozenset(
    {b"origin", b"x-phoenix-authtoken", b"content-length", b"content-type", b"transfer-encoding", b"accept"}
)

#: Of the server, for the whole connection.
_KEPT_EXTENSIONS = ("trio_channels.connection",)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of a header; None if there is none. Of several the first."""
    return next((value for key, value in scope.get("headers", ()) if key.lower() == name), None)


def websocket_scope(scope: Scope) -> Scope:
    """The scope of the WebSocket that a request for a session stands for.

    Raises:
        ConfigurationError: the path of the request does not end with ``/longpoll``.
    """
    path: str = scope["path"]
    if not path.endswith(_LONGPOLL):
        raise ConfigurationError(f"a LongPolling is served at a path that ends with {_LONGPOLL!r}; got {path!r}")
    path = path.removesuffix(_LONGPOLL) + _WEBSOCKET
    raw: bytes = scope.get("raw_path") or b""
    raw = raw.removesuffix(_LONGPOLL.encode()) + _WEBSOCKET.encode() if raw.endswith(_LONGPOLL.encode()) else b""
    extensions = scope.get("extensions") or {}
    kept = {name: extensions[name] for name in _KEPT_EXTENSIONS if name in extensions}
    made: Scope = {
        "type": "websocket",
        # Before 2.4 a server's send() to a client that has gone does nothing; so does a session's.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": scope.get("http_version", "1.1"),
        "scheme": "wss" if scope.get("scheme") == "https" else "ws",
        "path": path,
        "raw_path": raw or path.encode(),
        "root_path": scope.get("root_path", ""),
        "query_string": scope.get("query_string", b""),
        "headers": [
            *(pair for pair in scope.get("headers", ()) if pair[0].lower() not in _OF_REQUEST),
            *((b"origin", origin) for origin in _origins(scope)),
        ],
        "subprotocols": _subprotocols(scope),
        "client": scope.get("client"),
        "server": scope.get("server"),
        "extensions": {**kept, "websocket.http.response": {}},
    }
    if "state" in scope:
        made["state"] = scope["state"]
    return made


def _origins(scope: Scope) -> list[bytes]:
    """The Origin headers of the handshake.

    Browsers leave the header out of a GET to the page's own site. Then the Referer tells the site, or
    ``Sec-Fetch-Site`` that it is the same one. No page can forge these, and a page of another site cannot leave out its
    Origin and read the answer.
    """
    given = [value for name, value in scope.get("headers", ()) if name.lower() == b"origin"]
    if given:
        return given
    site = header(scope, b"sec-fetch-site")
    if site not in (None, b"same-origin"):
        return []
    try:
        referer = urlsplit((header(scope, b"referer") or b"").decode("latin-1"))
    except ValueError:  # no browser sends it
        return []
    if referer.scheme and referer.netloc:
        return [f"{referer.scheme}://{referer.netloc}".encode("latin-1")]
    host = header(scope, b"host")
    return [scope.get("scheme", "http").encode() + b"://" + host] if site and host else []


def _subprotocols(scope: Scope) -> list[str]:
    """Those that the client offers with a WebSocket; the ``authToken`` is in one of them."""
    token = header(scope, b"x-phoenix-authtoken")
    if token is None:
        return []
    return [SUBPROTOCOL, TOKEN_PREFIX + base64.urlsafe_b64encode(token).decode().rstrip("=")]
