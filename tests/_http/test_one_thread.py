"""All synchronous code of a request runs on one thread, with the database connection that it has there."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
from asgiref.sync import markcoroutinefunction, sync_to_async
from django.core import signals
from django.core.cache import cache
from django.db import connection
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.test import override_settings
from django.urls import path
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from trio_channels._threads import pool
from trio_channels._threads.database import thread_pool
from trio_channels._threads.pool import PoolStatistics
from trio_channels.db import aatomic, database_sync_to_async, pinned

from . import common
from .common import NEUTRAL, client, fetch, until

REQUESTS = 6

#: Data that a package keeps on the request's thread, as one for tenants does.
kept = threading.local()
closed: list[tuple[str, str]] = []
#: The views wait here until all requests of a test have come.
arrived: list[str] = []
all_there = trio.Event()


def tenant() -> str:
    return f"{connection.tenant} {kept.tenant}"  # type: ignore[attr-defined]


def own(request: HttpRequest) -> str:
    name = request.GET["t"]
    return f"{name} {name}"


class Tenant(MiddlewareMixin):
    """Sets the tenant as django-tenants does, and checks that it is there in each of its hooks."""

    def process_request(self, request: HttpRequest) -> None:
        connection.tenant = kept.tenant = request.GET["t"]  # type: ignore[attr-defined]

    def process_template_response(self, request: HttpRequest, response: TemplateResponse) -> TemplateResponse:
        response.headers["X-Template"] = str(tenant() == own(request))
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        return HttpResponse(tenant())

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers["X-Tenant"] = str(tenant() == own(request))
        response._resource_closers.append(lambda: closed.append((tenant(), own(request))))  # type: ignore[attr-defined]
        return response


class OnRequest(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        kept.tenant = "ada"


class OnView(MiddlewareMixin):
    def process_view(self, request: HttpRequest, *view: Any) -> None:
        kept.tenant = "ada"


class OnViewInAsync:
    async_capable, sync_capable = True, False

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> Any:
        return await self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> None:
        kept.tenant = "ada"


class OnResponse(MiddlewareMixin):
    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        kept.tenant = "ada"
        return response


class OnException(MiddlewareMixin):
    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase:
        kept.tenant = "ada"
        return StreamingHttpResponse(waiting_parts())


class Refuses(MiddlewareMixin):
    """Answers before the view, as Django's middleware for CSRF does by a view of the project's."""

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponseBase:
        return StreamingHttpResponse(waiting_parts())


class Leads(MiddlewareMixin):
    """Leads to another view than the path does."""

    def process_request(self, request: HttpRequest) -> None:
        request.path_info = "/waits_in_a_sync_views_stream/"


Refuses.__module__ = Leads.__module__ = common.__name__  # NEUTRAL names that module


@sync_and_async_middleware
def does_nothing(get_response: Any) -> Any:
    async def middleware(request: HttpRequest) -> Any:
        return await get_response(request)

    return middleware


@sync_and_async_middleware
def raises(get_response: Any) -> Any:
    async def middleware(request: HttpRequest) -> Any:
        raise Http404

    return middleware


def sync_only(get_response: Any) -> Any:
    def middleware(request: HttpRequest) -> Any:
        return get_response(request)

    return middleware


sync_only.__module__ = common.__name__


async def meet(request: HttpRequest) -> None:
    """Wait until every request has come, so that they certainly mix."""
    arrived.append(request.GET["t"])
    if len(arrived) == REQUESTS:
        all_there.set()
    await all_there.wait()


async def called(request: HttpRequest) -> HttpResponse:
    await meet(request)
    return HttpResponse(await sync_to_async(tenant)())


async def called_through_ours(request: HttpRequest) -> HttpResponse:
    await meet(request)
    return HttpResponse(await database_sync_to_async(tenant)())


async def in_blocks(request: HttpRequest) -> HttpResponse:
    await meet(request)
    async with pinned():
        first = await sync_to_async(tenant)()
    async with aatomic():
        second = await sync_to_async(tenant)()
    return HttpResponse(first if first == second else f"{first} and {second}")


async def in_a_nursery(request: HttpRequest) -> HttpResponse:
    await meet(request)
    seen = set()

    async def look() -> None:
        seen.add(await sync_to_async(tenant)())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(look)
    return HttpResponse(" and ".join(seen))


async def streamed(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        await meet(request)
        yield await sync_to_async(tenant)()

    return StreamingHttpResponse(parts())


async def streamed_in_sync(request: HttpRequest) -> StreamingHttpResponse:
    await meet(request)

    def parts() -> Iterator[str]:
        yield tenant()

    return StreamingHttpResponse(parts())


class Shown:
    def __str__(self) -> str:
        return tenant()


async def rendered(request: HttpRequest) -> TemplateResponse:
    await meet(request)
    return TemplateResponse(request, "shown.html", {"shown": Shown()})


async def failing(request: HttpRequest) -> HttpResponse:
    await meet(request)
    raise ValueError


async def archived(request: HttpRequest) -> FileResponse:
    """The member of an archive is read by the archive's code."""
    await meet(request)

    class Archive(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return tenant().encode() if super().read(size) else b""

    return FileResponse(Archive(b"anything"))


async def waiting_parts() -> AsyncIterator[str]:
    arrived.append("a stream")
    await all_there.wait()
    yield "part"


async def waits_in_a_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(waiting_parts())


def waits_in_a_sync_views_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(waiting_parts())


async def not_found(request: HttpRequest) -> HttpResponse:
    raise Http404


def handler404(request: HttpRequest, exception: Exception) -> StreamingHttpResponse:
    kept.tenant = "ada"
    return StreamingHttpResponse(waiting_parts())


async def waits(request: HttpRequest) -> HttpResponse:
    arrived.append("waits")
    await all_there.wait()
    return HttpResponse(str(thread_pool().statistics().held))


async def asks_first(request: HttpRequest) -> HttpResponse:
    """Calls only Django's own asynchronous methods before it waits."""
    await cache.aset("tenant", "ada")
    await cache.aget("tenant")
    return await waits(request)


async def calls_first(request: HttpRequest) -> HttpResponse:
    await sync_to_async(setattr)(kept, "tenant", "ada")
    await all_there_after(request)
    return HttpResponse(await sync_to_async(lambda: kept.tenant)())


async def calls_in_a_block(request: HttpRequest) -> HttpResponse:
    async with pinned():
        await sync_to_async(setattr)(kept, "tenant", "ada")
    return await waits(request)


async def fails_at_once(request: HttpRequest) -> HttpResponse:
    raise ValueError


async def all_there_after(request: HttpRequest) -> None:
    arrived.append("calls")
    await all_there.wait()


async def insensitive(request: HttpRequest) -> HttpResponse:
    await sync_to_async(int, thread_sensitive=False)()
    return await waits(request)


def quick(request: HttpRequest) -> HttpResponse:
    return HttpResponse("quick")


async def file(request: HttpRequest) -> FileResponse:
    return FileResponse(io.BytesIO(b"x" * 600_000))


MIXED = (called, called_through_ours, in_blocks, in_a_nursery, streamed, streamed_in_sync, rendered, failing, archived)
STREAMS = (waits_in_a_stream, waits_in_a_sync_views_stream)
WAITING = (waits, asks_first, calls_first, calls_in_a_block, insensitive, *STREAMS)
VIEWS = (*MIXED, *WAITING, not_found, fails_at_once, quick, file)
urlpatterns = [path(f"{view.__name__}/", view) for view in VIEWS]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"shown.html": "{{ shown }}"})]},
    }
]
TENANT, SYNC_ONLY = f"{__name__}.Tenant", f"{__name__}.sync_only"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global all_there
    closed.clear()
    arrived.clear()
    all_there = trio.Event()


async def answers(view: str, **trio_channels: Any) -> list[tuple[str, bytes]]:
    """The expected and the actual answers to `REQUESTS` requests at the same time, each for a tenant of its own."""
    got: list[tuple[str, bytes]] = []

    async def ask(name: str) -> None:
        response = await fetch(f"/{view}/?t={name}")
        right = {value for key, value in response["headers"] if key.startswith(b"X-Te")} == {b"True"}
        got.append((f"{name} {name}", response["body"] if right else b"a hook saw another tenant"))

    with override_settings(TRIO_CHANNELS=NEUTRAL | {"WORKER_THREADS": REQUESTS} | trio_channels, TEMPLATES=TEMPLATES):
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(REQUESTS):
                    nursery.start_soon(ask, f"t{number}")
        assert thread_pool().statistics().leased == 0
    return got


@pytest.mark.parametrize("stack", [[TENANT], [SYNC_ONLY, TENANT]], ids=["async", "sync"])
@pytest.mark.parametrize("view", [view.__name__ for view in MIXED])
async def test_every_call_finds_the_tenant_of_its_request(view: str, stack: list[str]) -> None:
    with override_settings(MIDDLEWARE=stack):
        got = await answers(view)
    assert [body.decode() for _, body in got] == [expected for expected, _ in got]
    assert len(closed) == REQUESTS
    assert [seen for seen, _ in closed] == [expected for _, expected in closed], "closed on the request's thread"


async def test_freer_rule_mixes_threads_and_holds_none() -> None:
    """Shows that the tests above can fail. With one thread, that does not depend on chance."""
    with override_settings(MIDDLEWARE=[TENANT]):
        got = await answers("called", THREAD_PER_REQUEST=False, WORKER_THREADS=1)
    assert [body == expected.encode() for expected, body in got].count(True) == 1, "only the last to come is right"


async def wait_for(view: str) -> PoolStatistics:
    """The pool's statistics while one request to a view waits."""
    async with client(f"/{view}/?t=ada") as http:
        await http.send_request()
        await until(lambda: arrived)
        seen = thread_pool().statistics()
        all_there.set()
        assert (await http.get_response())["status"] == 200
    assert thread_pool().statistics().leased == 0
    return seen


DJANGOS_OWN = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]


@pytest.mark.parametrize("view", ["waits", "asks_first", "insensitive"])
async def test_waiting_request_that_left_nothing_holds_no_thread(view: str) -> None:
    with override_settings(MIDDLEWARE=DJANGOS_OWN, ALLOWED_HOSTS=["*"]):
        assert (await wait_for(view)).leased == 0


async def test_request_holds_its_thread_after_a_call() -> None:
    assert (await wait_for("calls_first")).held == 1


async def test_request_holds_its_thread_after_a_call_in_a_block() -> None:
    assert (await wait_for("calls_in_a_block")).held == 1


async def test_async_middleware_that_calls_nothing_holds_no_thread() -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.does_nothing"]):
        assert (await wait_for("waits")).leased == 0


async def test_request_holds_its_thread_after_a_middleware() -> None:
    with override_settings(MIDDLEWARE=[TENANT]):
        assert (await wait_for("waits")).held == 1


@pytest.mark.parametrize(
    ("middleware", "view"),
    [
        ("OnRequest", "waits"),
        ("OnView", "waits"),
        ("OnViewInAsync", "waits"),
        ("OnResponse", "waits_in_a_stream"),
        ("OnException", "fails_at_once"),
        ("Refuses", "waits"),
        ("Leads", "waits"),
        ("raises", "waits"),
    ],
)
async def test_each_hook_of_a_middleware_has_the_thread_held(middleware: str, view: str) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.{middleware}"]):
        assert (await wait_for(view)).held == 1


async def test_projects_answer_to_an_error_has_the_thread_held() -> None:
    assert (await wait_for("not_found")).held == 1


@pytest.mark.parametrize(
    ("stack", "view", "held"),
    [
        ([], "waits_in_a_stream", 0),
        ([], "waits_in_a_sync_views_stream", 1),
        ([SYNC_ONLY], "waits_in_a_stream", 0),
        ([SYNC_ONLY], "waits_in_a_sync_views_stream", 1),
        ([SYNC_ONLY, TENANT], "waits_in_a_stream", 1),
    ],
)
async def test_async_stream_has_the_thread_held_if_anything_was_left(stack: list[str], view: str, held: int) -> None:
    with override_settings(MIDDLEWARE=stack):
        assert (await wait_for(view)).held == held


async def test_package_that_is_named_neutral_has_no_thread_held() -> None:
    with override_settings(MIDDLEWARE=[TENANT], TRIO_CHANNELS={"THREAD_NEUTRAL": ["tests._http"]}):
        assert (await wait_for("waits")).leased == 0


async def test_receiver_of_request_started_has_the_thread_held() -> None:
    def receiver(**kwargs: Any) -> None:
        kept.tenant = "ada"

    signals.request_started.connect(receiver)
    try:
        assert (await wait_for("waits")).held == 1
    finally:
        signals.request_started.disconnect(receiver)


async def test_requests_that_hold_no_thread_do_not_delay_others() -> None:
    with override_settings(TRIO_CHANNELS=NEUTRAL | {"WORKER_THREADS": 1}):
        async with client("/waits/") as first, client("/asks_first/") as second:
            await first.send_request()
            await second.send_request()
            await until(lambda: len(arrived) == 2)
            assert (await fetch("/quick/"))["body"] == b"quick"
            all_there.set()
            assert [(await http.get_response())["status"] for http in (first, second)] == [200, 200]


async def test_client_that_leaves_gives_the_thread_back() -> None:
    async with client("/calls_first/") as http:
        await http.send_request()
        await until(lambda: arrived)
        assert thread_pool().statistics().held == 1
        await http.disconnect()
    assert thread_pool().statistics().leased == 0


async def test_cancelled_request_gives_the_thread_back() -> None:
    async with client("/calls_first/") as http:
        await http.send_request()
        await until(lambda: arrived)
        assert thread_pool().statistics().held == 1
        http.stop()
        await until(lambda: not thread_pool().statistics().leased)


async def test_request_that_waits_for_its_thread_can_be_cancelled() -> None:
    with override_settings(TRIO_CHANNELS=NEUTRAL | {"WORKER_THREADS": 1}):
        async with client("/calls_first/") as holder:
            await holder.send_request()
            await until(lambda: arrived)
            async with client("/calls_first/") as waiting:
                await waiting.send_request()
                await until(lambda: thread_pool().statistics().waiting)
            assert thread_pool().statistics().waiting == 0
            all_there.set()
            assert (await holder.get_response())["body"] == b"ada"
        assert thread_pool().statistics().leased == 0


async def test_log_names_the_requests_that_hold_all_threads(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "STARVING", 0.0)
    with override_settings(TRIO_CHANNELS=NEUTRAL | {"WORKER_THREADS": 1}):
        async with client("/calls_first/") as holder, client("/quick/") as waiting:
            await holder.send_request()
            await until(lambda: arrived)
            await waiting.send_request()
            await until(lambda: caplog.records)
            all_there.set()
            assert (await waiting.get_response())["body"] == b"quick"
            assert (await holder.get_response())["body"] == b"ada"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_channels.threads", logging.WARNING)
    message = record.getMessage()
    assert message.startswith("all 1 threads are taken and 1 calls wait, one of them for 0 seconds; 1 of ")
    assert "held between two calls of a request or a block (http /calls_first/)" in message
    assert "THREAD_NEUTRAL" in message


async def test_plain_file_is_sent_without_the_thread() -> None:
    with override_settings(MIDDLEWARE=[TENANT]):
        async with client("/file/?t=ada") as http:
            await http.send_request()
            assert (await http.receive_output())["status"] == 200
            assert closed == [("ada ada", "ada ada")], "the request has ended before its file is sent"
            assert thread_pool().statistics().held == 0
            sizes = [len((await http.receive_output()).get("body", b"")) for _ in range(4)]
        assert sum(sizes) == 600_000
