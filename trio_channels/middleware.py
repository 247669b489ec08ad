"""The smallest ASGI middleware."""

from __future__ import annotations

from typing import Any

from ._asgi.protocol import ASGIApplication, Receive, Scope, Send

__all__ = ["BaseMiddleware"]


class BaseMiddleware:
    """Wraps an application, which gets a shallow copy of the scope: keys that a middleware adds go inward only.

    Args:
        inner: the ASGI application.

    Override ``__call__``, change the scope, and call ``super().__call__``.
    """

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self.inner!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application."""
        return await self.inner(dict(scope), receive, send)
