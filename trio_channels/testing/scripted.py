"""A server that follows a script: for tests of an application with an exact list of events."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from .._asgi.protocol import ASGIApplication, Message, Scope


class ScriptedConnection:
    """The server's side of one connection, from a list of events.

    Args:
        scope: the application's scope.
        events: the messages that ``receive`` returns, in order. A callable in the list is called, and its result is
            ignored. After the last event ``receive`` waits for ever, as for a client that is connected and silent.

    Attributes:
        sent: the messages that the application has sent so far.
    """

    def __init__(self, scope: Scope, events: Iterable[Message | Callable[[], object]] = ()) -> None:
        self.scope = scope
        self.sent: list[Message] = []
        self._events = iter(events)

    def __repr__(self) -> str:
        return f"<ScriptedConnection of a {self.scope['type']!r} scope, {len(self.sent)} messages sent>"

    @classmethod
    def websocket(cls, *texts: str, path: str = "/", code: int | None = 1000) -> ScriptedConnection:
        """The connection of a client that connects, sends texts, and disconnects.

        Args:
            texts: the texts, in order.
            path: the path of the request.
            code: the close code of the disconnect; None for a client that stays connected.

        The disconnect follows as soon as the application has read the last text. The answers that it sends afterwards
        raise ``ConnectionClosed``, and are not in :attr:`sent`.
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
        """Run an application until it ends; returns the messages that it sent.

        Raises:
            Exception: the application's exception.

        Cancellation: cancels the application.
        """
        await application(self.scope, self.receive, self.send)
        return self.sent
