"""Django's request for a connection whose application is not Django's handler."""

from __future__ import annotations

import io
from urllib.parse import quote_from_bytes

from django.core.handlers.asgi import ASGIRequest
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from .._asgi.protocol import Scope
from .client import with_one_cookie_header

_ASCII = bytes(range(128))
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


class BodilessRequest(ASGIRequest):
    """A WebSocket's handshake, or an HTTP request without its body."""

    def __init__(self, scope: Scope) -> None:
        query = scope.get("query_string", b"")
        complete = {
            **with_one_cookie_header(scope),
            "method": scope.get("method", "GET"),
            "path": scope.get("path", "/"),
            "scheme": _HTTP_SCHEMES.get(scope.get("scheme", "ws"), scope.get("scheme")),
            # A client may send any bytes; Django decodes them.
            "query_string": quote_from_bytes(query, safe=_ASCII).encode(),
        }
        super().__init__(complete, io.BytesIO())
        # The connection's application has the body.
        self._post = QueryDict(encoding=self.encoding)
        self._files: MultiValueDict[str, object] = MultiValueDict()
