"""Answers to connections that no application serves."""

from __future__ import annotations

from collections.abc import Iterable

from .protocol import Receive, Send


async def deny_websocket(receive: Receive, send: Send) -> None:
    """Deny a WebSocket; servers answer the handshake with 403.

    Cancellation: the client may or may not get the answer.
    """
    event = await receive()
    if event["type"] == "websocket.connect":
        await send({"type": "websocket.close"})


async def respond_plainly(
    send: Send, status: int, text: str, more: Iterable[tuple[bytes, bytes]] = (), *, kind: str = "http.response"
) -> None:
    """Answer an HTTP request with a line of text.

    Args:
        send: the ASGI ``send``.
        status: the HTTP status.
        text: the line, without a line break.
        more: headers, besides the type and the length.
        kind: ``http.response``, or ``websocket.http.response`` for a handshake.

    Cancellation: the client may get none or a part of the answer.
    """
    body = text.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
