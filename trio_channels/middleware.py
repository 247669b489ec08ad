"""A base class of ASGI middleware."""

from __future__ import annotations

from typing import Any

from ._asgi.protocol import ASGIApplication, Receive, Scope, Send

__all__ = ["BaseMiddleware"]


class BaseMiddleware:
    """Passes a shallow copy of the scope to the inner application, so that changes do not reach outer middleware.

    Override ``__call__``, change the scope, and call ``super().__call__``.

    Args:
        inner: the ASGI application.
    """

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self.inner!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application. Cancellation: the application's."""
        return await self.inner(dict(scope), receive, send)
