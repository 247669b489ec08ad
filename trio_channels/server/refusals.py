"""Requests that the server refuses by itself: each is counted, and has a line in the access log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import ServerConnection


async def refused(connection: ServerConnection, status: int, request: Mapping[str, Any] | None = None) -> None:
    """Count a refusal, and log it with as much of the request as is known. Cancellation: as the logger.

    Args:
        connection: the connection of the client.
        status: the status of the answer, or the one that says best why the connection ends.
        request: entries of the request's scope; without them the line has "-" in their places.
    """
    connection.served.refusals[status] += 1
    scope: Any = {
        "type": "http",
        "method": "-",
        "path": "-",
        "scheme": "https" if connection.secure else "http",
        "client": connection.client,
        "headers": [],
        "extensions": connection.extensions,
        **(request or {}),
    }
    response: Any = {"status": status, "headers": []}
    await connection.config.log.access(scope, response, 0.0)
