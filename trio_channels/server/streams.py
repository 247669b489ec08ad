"""The requests and WebSockets of one connection whose applications have not been told of the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .http import HttpStream
    from .websocket import WebSocketStream

    Stream: TypeAlias = HttpStream | WebSocketStream


class Streams:
    """Who is to be told when the connection ends."""

    def __init__(self) -> None:
        self._open: set[Stream] = set()
        self._over = False

    def enter(self, stream: Stream) -> bool:
        """Note one more; returns whether the connection has not ended yet."""
        if not self._over:
            self._open.add(stream)
        return not self._over

    def discard(self, stream: Stream) -> None:
        """Forget one that has been told, or has no application."""
        self._open.discard(stream)

    async def hang_up(self) -> None:
        """Tell every application that its client has gone, however that came; then the log.

        Cancellation: all of them have been told.
        """
        self._over = True
        for stream in [stream for stream in list(self._open) if stream.hang_up()]:
            await stream.log_end()
