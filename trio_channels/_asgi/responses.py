"""Answers to connections that no application serves."""

from __future__ import annotations

from collections.abc import Iterable

from .protocol import Receive, Send


async def deny_websocket(receive: Receive, send: Send) -> None:
    """Deny a WebSocket; servers answer the handshake with 403."""
    event = await receive()
    if event["type"] == "websocket.connect":
        await send({"type": "websocket.close"})


async def respond_plainly(
    send: Send, status: int, text: str, more: Iterable[tuple[bytes, bytes]] = (), *, kind: str = "http.response"
) -> None:
    """Answer an HTTP request, or with ``websocket.http.response`` a handshake, with a line of text."""
    body = text.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
