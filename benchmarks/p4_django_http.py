"""P4: Django over HTTP. Several clients request the same page again and again.

The server is a stub: one event for ``receive``, and a list for the messages of ``send``. Its ``send`` lets other tasks
run once, as every server's does at least. Both sides run the middleware of a new Django project, and the same views:

- *trivial*: a sync view that answers at once;
- *query*: a sync view that first gets one row from the database (SQLite, in a file), over a persistent connection;
- *async*: an async view that waits for the event loop once.

The peer is Django's own ``ASGIHandler`` on asyncio.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .harness import Comparison, Side, Stopwatch, Timing, Workload, main

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

#: Concurrent requests. There are more threads, so that no request waits for one.
CLIENTS = 4

#: Seconds for the whole side.
DEADLINE = 200

#: The middleware of ``django-admin startproject``.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
]

HEADERS = [(b"host", b"localhost"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")]

urlpatterns: list[Any] = []

Application = Callable[[dict[str, Any], Callable[[], Any], Callable[[Any], Any]], Awaitable[None]]


def set_up(database: Path, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Configure Django, with a table of one row, and make the views."""
    import django
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        SECRET_KEY="only for measuring",
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=APPS,
        MIDDLEWARE=MIDDLEWARE,
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(database), "CONN_MAX_AGE": None},
        },
    )
    django.setup(set_prefix=False)
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection
    from django.http import HttpResponse
    from django.urls import path

    with connection.schema_editor() as editor:
        editor.create_model(ContentType)
    row = ContentType.objects.create(app_label="answers", model="answer")
    connection.close()

    def trivial(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
        return HttpResponse("the answer")

    def query(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
        return HttpResponse(f"the {ContentType.objects.get(pk=row.pk).model}")

    async def asynchronous(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
        await sleep(0)
        return HttpResponse("the answer")

    urlpatterns[:] = [path("trivial/", trivial), path("query/", query), path("async/", asynchronous)]


class Exchange:
    """One request and its response."""

    def __init__(self, view: str) -> None:
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": f"/{view}/",
            "raw_path": f"/{view}/".encode(),
            "query_string": b"",
            "root_path": "",
            "headers": HEADERS,
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8_000),
        }
        self.sent: list[dict[str, Any]] = []
        self.asked = False

    def verify(self) -> None:
        """Raise unless the answer is complete and right."""
        body = b"".join(message.get("body", b"") for message in self.sent[1:])
        if self.sent[0].get("status") != 200 or body != b"the answer" or self.sent[-1].get("more_body"):
            raise RuntimeError(f"expected 200 and 'the answer'; got {self.sent!r}")


def warm_up(count: int) -> int:
    return max(CLIENTS, count // 5)


# -- Trio --------------------------------------------------------------------------------------------------------------


def ours(view: str) -> Callable[[int], Timing]:
    """Our handler."""

    def run(count: int) -> Timing:
        import trio

        with tempfile.TemporaryDirectory() as directory:
            set_up(Path(directory, "database.sqlite3"), trio.sleep)
            from trio_channels.asgi import get_asgi_application

            return trio.run(_on_trio, get_asgi_application(), view, count)

    return run


async def _on_trio(application: Application, view: str, count: int) -> Timing:
    import trio

    async def ask() -> None:
        exchange = Exchange(view)

        async def receive() -> dict[str, Any]:
            if exchange.asked:
                await trio.sleep_forever()
            exchange.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            exchange.sent.append(message)
            await trio.lowlevel.checkpoint()

        await application(exchange.scope, receive, send)
        exchange.verify()

    async def client(requests: int) -> None:
        for _ in range(requests):
            await ask()

    async def ask_all(requests: int) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(client, len(range(number, requests, CLIENTS)))

    with trio.fail_after(DEADLINE):
        await ask_all(warm_up(count))
        with Stopwatch() as watch:
            await ask_all(count)
    return watch.timing(count)


# -- asyncio -----------------------------------------------------------------------------------------------------------


def django_asgi(view: str) -> Callable[[int], Timing]:
    """Django's handler."""

    def run(count: int) -> Timing:
        import asyncio

        with tempfile.TemporaryDirectory() as directory:
            set_up(Path(directory, "database.sqlite3"), asyncio.sleep)
            from django.core.handlers.asgi import ASGIHandler

            return asyncio.run(_on_asyncio(ASGIHandler(), view, count))

    return run


async def _on_asyncio(application: Application, view: str, count: int) -> Timing:
    import asyncio

    async def ask() -> None:
        exchange = Exchange(view)

        async def receive() -> dict[str, Any]:
            if exchange.asked:
                await asyncio.Future()
            exchange.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            exchange.sent.append(message)
            await asyncio.sleep(0)

        await application(exchange.scope, receive, send)
        exchange.verify()

    async def client(requests: int) -> None:
        for _ in range(requests):
            await ask()

    async def ask_all(requests: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(len(range(number, requests, CLIENTS))))

    async with asyncio.timeout(DEADLINE):
        await ask_all(warm_up(count))
        with Stopwatch() as watch:
            await ask_all(count)
    return watch.timing(count)


WORKLOAD = Workload(
    name="p4_django_http",
    title="Django over HTTP",
    unit="request",
    sides={
        "ours-trivial": Side(ours("trivial"), 4_000),
        "django-trivial": Side(django_asgi("trivial"), 1_000),
        "ours-query": Side(ours("query"), 2_000),
        "django-query": Side(django_asgi("query"), 600),
        "ours-async": Side(ours("async"), 2_000),
        "django-async": Side(django_asgi("async"), 1_000),
    },
    comparisons=(
        Comparison("trivial view, ASGIHandler", "ours-trivial", "django-trivial", faster=4),
        Comparison("view with one query, ASGIHandler", "ours-query", "django-query", faster=2.5),
        Comparison("async view, ASGIHandler", "ours-async", "django-async", faster=1.7),
    ),
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
