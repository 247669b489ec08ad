"""P6: a WebSocket connects with a session cookie, is accepted for its user, and disconnects.

The session and the user come from an SQLite file, over persistent connections. One client connects again and again, or
ten at the same time. The consumer checks the user before it accepts.

The server is a stub: two events for ``receive``, and a list for the messages of ``send``. Its ``send`` lets other tasks
run once, as every server's does at least. Both sides have a plain consumer in ``AuthMiddlewareStack``: ours, and
Channels'.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from .harness import Comparison, Side, Stopwatch, Timing, Workload, main
from .sockets.project import NAME, make_database

#: Seconds for the whole side.
DEADLINE = 200

Application = Callable[[dict[str, Any], Callable[[], Any], Callable[[Any], Any]], Awaitable[None]]


@contextmanager
def project() -> Iterator[str]:
    """Django with a database of one user and a session of that user; gives the session's cookie."""
    import django
    from django.conf import settings

    with tempfile.TemporaryDirectory(prefix="trio-channels-benchmark-") as folder:
        path = str(Path(folder) / "db.sqlite3")
        settings.configure(
            SECRET_KEY="only for measuring",
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "CONN_MAX_AGE": None}},
        )
        django.setup()
        yield make_database()


class Visit:
    """One connection: ``connect``, and ``disconnect`` after the application's answer.

    Args:
        cookie: the session's cookie.
        answered: an event of Trio or asyncio, to be set by the answer.
    """

    def __init__(self, cookie: str, answered: Any) -> None:
        self._answered = answered
        self.scope = {
            "type": "websocket",
            "path": "/room/",
            "headers": [(b"host", b"localhost"), (b"cookie", cookie.encode())],
            "subprotocols": [],
        }
        self._has_connected = False
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self._has_connected:
            self._has_connected = True
            return {"type": "websocket.connect"}
        await self._answered.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    def take(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self._answered.set()

    def verify(self) -> None:
        """Raise unless the application accepted."""
        types = [message["type"] for message in self.sent]
        if types != ["websocket.accept"]:
            raise RuntimeError(f"expected one websocket.accept and no other message; got {self.sent!r}")


def check_user(scope: dict[str, Any]) -> None:
    """Raise unless the scope has the user of the session."""
    if scope["user"].username != NAME:
        raise RuntimeError(f"expected the user {NAME!r}; got {scope['user']!r}")


def ours(clients: int, count: int) -> Timing:
    """Our consumer and middleware."""
    with project() as cookie:
        import trio

        from trio_channels.auth import AuthMiddlewareStack
        from trio_channels.generic.websocket import AsyncWebsocketConsumer

        class Member(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                check_user(self.scope)
                await self.accept()

        return trio.run(_on_trio, AuthMiddlewareStack(Member.as_asgi()), cookie, clients, count)


async def _on_trio(application: Application, cookie: str, clients: int, count: int) -> Timing:
    import trio

    async def connect(times: int) -> None:
        for _ in range(times):
            visit = Visit(cookie, trio.Event())

            async def send(message: dict[str, Any], take: Callable[[Any], None] = visit.take) -> None:
                take(message)
                await trio.lowlevel.checkpoint()

            await application(visit.scope, visit.receive, send)
            visit.verify()

    async def connect_all(times: int) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(connect, len(range(number, times, clients)))

    with trio.fail_after(DEADLINE):
        await connect_all(max(clients, count // 5))
        with Stopwatch() as watch:
            await connect_all(count)
    return watch.timing(count)


def channels(clients: int, count: int) -> Timing:
    """Channels' consumer and middleware."""
    with project() as cookie:
        import asyncio

        from channels.auth import AuthMiddlewareStack
        from channels.generic.websocket import AsyncWebsocketConsumer

        class Member(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                check_user(self.scope)
                await self.accept()

        return asyncio.run(_on_asyncio(AuthMiddlewareStack(Member.as_asgi()), cookie, clients, count))


async def _on_asyncio(application: Application, cookie: str, clients: int, count: int) -> Timing:
    import asyncio

    async def connect(times: int) -> None:
        for _ in range(times):
            visit = Visit(cookie, asyncio.Event())

            async def send(message: dict[str, Any], take: Callable[[Any], None] = visit.take) -> None:
                take(message)
                await asyncio.sleep(0)

            await application(visit.scope, visit.receive, send)
            visit.verify()

    async def connect_all(times: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(connect(len(range(number, times, clients))))

    async with asyncio.timeout(DEADLINE):
        await connect_all(max(clients, count // 5))
        with Stopwatch() as watch:
            await connect_all(count)
    return watch.timing(count)


WORKLOAD = Workload(
    name="p6_connect",
    title="connect with a user",
    unit="connection",
    sides={
        "ours-1": Side(partial(ours, 1), 1_000),
        "channels-1": Side(partial(channels, 1), 500, needs=("channels",)),
        "ours-10": Side(partial(ours, 10), 1_000),
        "channels-10": Side(partial(channels, 10), 500, needs=("channels",)),
    },
    comparisons=(
        Comparison("one client, channels", "ours-1", "channels-1", faster=1.5),
        Comparison("one client, channels, CPU", "ours-1", "channels-1", of="cpu_us"),
        Comparison("ten clients, channels", "ours-10", "channels-10", faster=1.5),
        Comparison("ten clients, channels, CPU", "ours-10", "channels-10", of="cpu_us"),
    ),
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
