"""The same application as consumers and as an endpoint, into whose queues our server puts its events directly."""

from __future__ import annotations

from typing import Any

import trio

from trio_channels.exceptions import ConnectionClosed
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.sync import async_to_sync
from trio_channels.websocket import WebSocket, websocket

from .vanishing import Notes


class _Direct(Notes):
    """Counts as :class:`Notes` does; an application for each connection is made by :meth:`make`."""

    async def _be(self, scope: Any, receive: Any, send: Any, start: Any, more: Any) -> None:
        if scope["type"] != "websocket":
            await super()._be(scope, receive, send, start, more)
            return
        with self.counted(scope) as case:
            await self.make(scope["path"][1:], case)(scope, receive, send)

    def make(self, place: str, case: str) -> Any:
        """An application that is in this place, and notes that it was told of the end."""
        raise NotImplementedError

    def note(self, connection: Any, case: str) -> None:
        self.ways.add(connection.direct)
        self.told[case] += 1


class AsyncConsumers(_Direct):
    def make(self, place: str, case: str) -> Any:
        notes = self

        class Consumer(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                if place != "unaccepted":
                    await self.accept()
                while place == "flooding":
                    await self.send("a" * 999)
                if place == "slow":
                    await notes.go_on.wait()

            async def disconnect(self, code: int) -> None:
                notes.note(self._connection, case)

        return Consumer.as_asgi()


class SyncConsumers(_Direct):
    def make(self, place: str, case: str) -> Any:
        notes = self

        class Consumer(WebsocketConsumer):
            def connect(self) -> None:
                if place != "unaccepted":
                    self.accept()
                while place == "flooding":
                    self.send("a" * 999)
                if place == "slow":
                    async_to_sync(notes.go_on.wait)()

            def disconnect(self, code: int) -> None:
                notes.note(self._connection, case)

        return Consumer.as_asgi()


class Endpoints(_Direct):
    def make(self, place: str, case: str) -> Any:
        @websocket
        async def endpoint(ws: WebSocket) -> None:
            try:
                if place != "unaccepted":
                    await ws.accept()
                while place == "flooding":
                    await ws.send("a" * 999)
                if place == "slow":
                    await self.go_on.wait()
                while True:
                    await ws.receive()
            except (ConnectionClosed, trio.Cancelled):
                self.note(ws._connection, case)
                raise

        return endpoint
