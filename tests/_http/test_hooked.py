"""Tools that replace methods of Django's handlers, at any time: each request is in a context of its own."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
from asgiref.sync import SyncToAsync
from django.core.handlers import base, exception
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels._http import hooked
from trio_channels._http.handler import DjangoHandler
from trio_channels._threads.database import thread_pool
from trio_channels.testing import ApplicationCommunicator

from .common import NEUTRAL, PatientCommunicator, client, until


class Watch:
    """A request as the tool sees it: the hooks that were called, and the notes of the project's code."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.hooks: list[str] = []
        self.notes: list[str] = []


current: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("current", default=None)
watched: list[Watch] = []
loaded: list[str] = []


def hook(name: str, note: str = "") -> None:
    watch = current.get()
    if watch is not None:
        watch.hooks.append(name)
        if note:
            watch.notes.append(note)


def replace_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace methods and functions of Django as the tools do."""
    call, create, load = ASGIHandler.__call__, ASGIHandler.create_request, BaseHandler.load_middleware
    respond, respond_async = BaseHandler.get_response, BaseHandler.get_response_async
    atomic, fail, find = BaseHandler.make_view_atomic, exception.response_for_exception, base.import_string

    async def __call__(self: Any, scope: Any, receive: Any, send: Any) -> None:
        before = current.set(Watch(scope["path"]))
        watched.append(current.get())  # type: ignore[arg-type]
        hook("__call__")
        try:
            await call(self, scope, receive, send)
        finally:
            current.reset(before)

    def create_request(self: Any, scope: Any, body_file: Any) -> Any:
        request, answer = create(self, scope, body_file)
        hook("create_request", "" if request is None else request.path)
        return request, answer

    def load_middleware(self: Any, is_async: bool = False) -> None:
        with monkeypatch.context() as inside:
            inside.setattr(base, "import_string", lambda path: loaded.append(path) or find(path))
            load(self, is_async)

    def get_response(self: Any, request: Any) -> Any:
        hook("get_response", request.path)
        response = respond(self, request)
        hook("after", request.path)
        return response

    async def get_response_async(self: Any, request: Any) -> Any:
        hook("get_response_async", request.path)
        response = await respond_async(self, request)
        hook("after", request.path)
        return response

    def make_view_atomic(self: Any, view: Any) -> Any:
        hook("make_view_atomic")
        return atomic(self, view)

    def response_for_exception(request: Any, error: Any) -> Any:
        hook("response_for_exception", request.path)
        return fail(request, error)

    monkeypatch.setattr(ASGIHandler, "__call__", __call__)
    monkeypatch.setattr(ASGIHandler, "create_request", create_request)
    monkeypatch.setattr(BaseHandler, "load_middleware", load_middleware)
    monkeypatch.setattr(BaseHandler, "get_response", get_response)
    monkeypatch.setattr(BaseHandler, "get_response_async", get_response_async)
    monkeypatch.setattr(BaseHandler, "make_view_atomic", make_view_atomic)
    monkeypatch.setattr(exception, "response_for_exception", response_for_exception)


# -- a project --------------------------------------------------------------------------------------------------------


def note(request: HttpRequest) -> None:
    hook("view", request.path)


def sync_view(request: HttpRequest, name: str) -> HttpResponse:
    note(request)
    if name == "fails":
        raise LookupError(name)
    return HttpResponse(name)


async def async_view(request: HttpRequest, name: str) -> HttpResponse:
    note(request)
    await trio.lowlevel.checkpoint()
    note(request)
    if name == "fails":
        raise LookupError(name)
    return HttpResponse(name)


def sync_stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for part in name:
            note(request)
            yield part

    return StreamingHttpResponse(parts())


async def async_stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for part in name:
            await trio.lowlevel.checkpoint()
            note(request)
            yield part

    return StreamingHttpResponse(parts())


def failing_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    def middleware(request: HttpRequest) -> Any:
        get_response(request)
        note(request)
        raise LookupError("in the middleware")

    return middleware


urlpatterns = [
    path("sync/<name>/", sync_view),
    path("async/<name>/", async_view),
    path("sync_stream/<name>/", sync_stream),
    path("async_stream/<name>/", async_stream),
]

SYNC = ["__call__", "create_request", "get_response", "make_view_atomic"]
ASYNC = ["__call__", "create_request", "get_response_async", "make_view_atomic"]


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[]):
        yield
    watched.clear()
    loaded.clear()


async def visit(application: Any, where: str) -> int:
    async with PatientCommunicator(application, "GET", where) as http:
        return int((await http.get_response())["status"])


# -- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "name", "hooks"),
    [
        ("sync", "works", [*SYNC, "view", "after"]),
        ("sync", "fails", [*SYNC, "view", "response_for_exception", "after"]),
        ("async", "works", [*ASYNC, "view", "view", "after"]),
        ("async", "fails", [*ASYNC, "view", "view", "response_for_exception", "after"]),
        ("sync_stream", "abc", [*SYNC, "after", "view", "view", "view"]),
        ("async_stream", "abc", [*ASYNC, "after", "view", "view", "view"]),
        ("nowhere", "missing", [*SYNC[:3], "response_for_exception", "after"]),
    ],
)
async def test_every_hook_is_called_in_the_requests_own_context(
    when: str, kind: str, name: str, hooks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if when == "before":
        replace_methods(monkeypatch)
    application = DjangoHandler()
    if when == "after":
        replace_methods(monkeypatch)
    statuses: set[int] = set()

    async def one(number: int) -> None:
        statuses.add(await visit(application, f"/{kind}/{name}/?{number}"))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(one, number)
    assert statuses == {{"fails": 500, "missing": 404}.get(name, 200)}
    assert [watch.hooks for watch in watched] == [hooks] * 8


@pytest.mark.parametrize("kind", ["sync", "async", "sync_stream", "async_stream"])
async def test_requests_side_by_side_are_not_mixed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_methods(monkeypatch)
    application = DjangoHandler()
    names = ["works", "fails", "others", "more"]
    async with trio.open_nursery() as nursery:
        for name in names * 5:
            nursery.start_soon(visit, application, f"/{kind}/{name}/")
    assert len(watched) == 20
    assert {watch.where for watch in watched} == {f"/{kind}/{name}/" for name in names}
    for watch in watched:
        assert set(watch.notes) == {watch.where}
    assert current.get() is None


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_error_of_middleware_is_in_the_requests_context(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_methods(monkeypatch)
    with override_settings(MIDDLEWARE=[f"{__name__}.failing_middleware"]):
        assert await visit(DjangoHandler(), f"/{kind}/works/") == 500
    (watch,) = watched
    assert watch.hooks[-2:] == ["response_for_exception", "after"]


def test_middleware_is_loaded_by_djangos_own_method(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_methods(monkeypatch)
    with override_settings(MIDDLEWARE=[f"{__name__}.failing_middleware"]):
        DjangoHandler()
    assert loaded == [f"{__name__}.failing_middleware"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_malformed_request_is_created_by_djangos_method(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_methods(monkeypatch)
    http = PatientCommunicator(DjangoHandler(), "GET", f"/{kind}/works/")
    http.scope["query_string"] = b"\xff"
    async with http:
        assert (await http.get_response())["status"] == 400
    assert watched[0].hooks == ["__call__", "create_request"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_hooked_request_holds_no_thread_while_it_is_sent(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_methods(monkeypatch)
    go_on = trio.Event()
    sending = trio.Event()

    async def receive() -> dict[str, Any]:
        if not received:
            received.append(True)
            return {"type": "http.request"}
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def send(message: dict[str, Any]) -> None:
        sending.set()
        await go_on.wait()

    received: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(DjangoHandler(), client(f"/{kind}/works/").scope, receive, send)
        await sending.wait()
        assert thread_pool().statistics().leased == 0
        go_on.set()


async def test_hooked_async_view_ends_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_methods(monkeypatch)
    ended: list[HttpRequest] = []
    started = trio.Event()

    async def waits(request: HttpRequest) -> HttpResponse:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(request)
        raise AssertionError("unreachable")

    monkeypatch.setattr(f"{__name__}.urlpatterns", [path("waits/", waits)])
    with override_settings(TRIO_CHANNELS=NEUTRAL):
        async with ApplicationCommunicator(DjangoHandler(), client("/waits/").scope) as http:
            await http.send_input({"type": "http.request"})
            await started.wait()
            await http.send_input({"type": "http.disconnect"})
            await http.wait(timeout=30)
    (request,) = ended
    await until(lambda: request._stream.closed)  # type: ignore[attr-defined]
    assert thread_pool().statistics().leased == 0


async def test_without_the_bridge_no_method_that_needs_asyncio_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_methods(monkeypatch)
    assert hooked.is_bridged()
    monkeypatch.setattr(SyncToAsync, "__call__", lambda *args: pytest.fail("called"))
    assert not hooked.is_bridged()
    assert await visit(DjangoHandler(), "/async/fails/") == 500
    assert "get_response_async" not in watched[0].hooks
    assert watched[0].hooks[-2:] == ["view", "response_for_exception"]


def test_replaced_method_is_known_from_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hooked.djangos_method(ASGIHandler, "__call__") is hooked.DJANGOS_CALL is ASGIHandler.__call__
    assert hooked.djangos_method(BaseHandler, "get_response_async") is hooked.DJANGOS_GET_RESPONSE_ASYNC
    replace_methods(monkeypatch)
    assert hooked.djangos_method(ASGIHandler, "__call__") is None

    class Proxy:  # like wrapt's, it has the function's code
        __code__ = hooked.DJANGOS_CALL.__code__  # type: ignore[attr-defined]

    monkeypatch.setattr(ASGIHandler, "__call__", Proxy())
    assert hooked.djangos_method(ASGIHandler, "__call__") is None
