"""A server that follows a script: for tests of what an application does with exactly these events."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from .._asgi.protocol import ASGIApplication, Message, Scope


class ScriptedConnection:
    """The server's side of one connection, from a list.

    Args:
        scope: the application's scope.
        events: what ``receive`` returns, one after the other; a callable is called instead, and its result skipped.
            After the last one ``receive`` waits for ever, as a client that stays connected and says nothing.

    Attributes:
        sent: what the application has sent so far.
    """

    def __init__(self, scope: Scope, events: Iterable[Message | Callable[[], object]] = ()) -> None:
        self.scope = scope
        self.sent: list[Message] = []
        self._events = iter(events)

    def __repr__(self) -> str:
        return f"<ScriptedConnection of a {self.scope['type']!r} scope, {len(self.sent)} messages sent>"

    @classmethod
    def websocket(cls, *texts: str, path: str = "/", code: int | None = 1000) -> ScriptedConnection:
        """A client that connects, sends texts, and leaves; with ``code=None`` it stays.

        One that leaves does so as soon as the application has read so far: answers sent after that raise
        ``ConnectionClosed``, and are not in :attr:`sent`.
        """
        events: list[Message] = [{"type": "websocket.connect"}]
        events += [{"type": "websocket.receive", "text": text} for text in texts]
        if code is not None:
            events.append({"type": "websocket.disconnect", "code": code})
        return cls({"type": "websocket", "path": path, "headers": [], "subprotocols": []}, events)

    async def receive(self) -> Message:
        """The application's ``receive``."""
        await trio.lowlevel.checkpoint()
        for event in self._events:
            if not callable(event):
                return event
            event()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    async def run(self, application: ASGIApplication) -> list[Message]:
        """Run an application to its end; returns what it sent.

        Raises:
            Exception: what the application raised.

        Cancellation: is the application's.
        """
        await application(self.scope, self.receive, self.send)
        return self.sent
