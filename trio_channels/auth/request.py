"""The request that login and logout over a connection give to Django, and so to the receivers of its signals."""

from __future__ import annotations

import io
from urllib.parse import quote_from_bytes

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.handlers.asgi import ASGIRequest
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from .._asgi.protocol import Scope
from .._http.client import with_one_cookie_header

_ASCII = bytes(range(128))
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


class ConnectionRequest(ASGIRequest):
    """A WebSocket's handshake, or the HTTP request of a consumer, without its body.

    It has everything that Django's middleware would have added for authentication: ``session``, ``user`` and ``auser``.
    """

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
        # The consumer has the body.
        self._post = QueryDict(encoding=self.encoding)
        self._files: MultiValueDict[str, object] = MultiValueDict()
        self.session = scope["session"]
        self.user = scope.get("user") or AnonymousUser()

    async def auser(self) -> AbstractBaseUser | AnonymousUser:
        """The user. Cancellation: there is no checkpoint."""
        user: AbstractBaseUser | AnonymousUser = self.user
        return user
