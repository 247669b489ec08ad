"""The request that login and logout over a connection give to Django, and so to the receivers of its signals."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from .._asgi.protocol import Scope
from .._http.bodiless import BodilessRequest


class ConnectionRequest(BodilessRequest):
    """A WebSocket's handshake, or the HTTP request of a consumer, without its body.

    It has everything that Django's middleware would have added for authentication: ``session``, ``user`` and ``auser``.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.session = scope["session"]
        self.user = scope.get("user") or AnonymousUser()

    async def auser(self) -> AbstractBaseUser | AnonymousUser:
        """The user. Cancellation: there is no checkpoint."""
        user: AbstractBaseUser | AnonymousUser = self.user
        return user
