"""Django's HTTP side on Trio, compared with Django's own where both must agree."""

from __future__ import annotations

import gc
import io
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import sniffio
import trio
import trio.testing
from asgiref.sync import markcoroutinefunction
from django.core import signals
from django.core.handlers.asgi import ASGIHandler
from django.db import connection as database
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.test import Client, modify_settings, override_settings
from django.urls import path, reverse
from django.utils.decorators import async_only_middleware, sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin
from django.views import View

from trio_channels._http.handler import DjangoHandler
from trio_channels._threads.database import thread_pool
from trio_channels.asgi import get_asgi_application
from trio_channels.exceptions import ConfigurationError
from trio_channels.sync import async_to_sync, sync_to_async
from trio_channels.testing import ApplicationCommunicator, HttpCommunicator

from .common import Signals, client, fetch, header, until

# -- a project in a module --------------------------------------------------------------------------------------------


class Stage:
    """The events that one test's views wait for, and their notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.threads: list[str] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.trio_entered: trio.Event | None = None

    def wait(self) -> None:
        self.entered.set()
        if not self.go_on.wait(30):
            raise TimeoutError("the test did not let the view go on")


stage = Stage()


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello {request.GET.get('name', 'world')}")


def threads(request: HttpRequest) -> HttpResponse:
    stage.threads.append(threading.current_thread().name)
    return HttpResponse("x")


def cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(" and ".join(f"{name}={value}" for name, value in sorted(request.COOKIES.items())))
    response.set_cookie("first", "1", httponly=True)
    response.set_cookie("second", "2")
    return response


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, content_type=request.content_type)


def form(request: HttpRequest) -> JsonResponse:
    files = {name: [type(file).__name__, file.read().decode()] for name, file in request.FILES.items()}
    return JsonResponse({"post": request.POST.dict(), "files": files})


def meta(request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "path_info": request.path_info,
            "query": request.META["QUERY_STRING"],
            "header": request.headers.get("X-Mine"),
            "address": request.META.get("REMOTE_ADDR", "127.0.0.1"),
            "reversed": reverse("hello"),
        }
    )


def crash(request: HttpRequest) -> HttpResponse:
    raise LookupError("in the view")


def missing(request: HttpRequest) -> HttpResponse:
    raise Http404("nothing here")


def waits(request: HttpRequest) -> HttpResponse:
    stage.wait()
    stage.notes.append("view ended")
    return HttpResponse("late")


def leaves_the_worker(request: HttpRequest) -> HttpResponse:
    raise SystemExit


def streams(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(part for part in ["a", "", "b", b"c"])


def streams_nothing(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse([])


def streams_and_crashes(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        yield "a"
        raise LookupError("in the stream")

    return StreamingHttpResponse(parts())


def streams_for_ever(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        try:
            while True:
                stage.threads.append(threading.current_thread().name)
                yield "x" * 1000
        finally:
            stage.notes.append("generator closed")

    return StreamingHttpResponse(parts())


async def streams_in_trio(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for part in ["a", "b", "c"]:
            await trio.lowlevel.checkpoint()
            yield part + sniffio.current_async_library()[0]

    return StreamingHttpResponse(parts())


def hops_in_trio(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for part in "abc":
            yield await sync_to_async(part.upper)()

    return StreamingHttpResponse(parts())


def events(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        try:
            yield "data: 1\n\n"
            await trio.sleep_forever()
        finally:
            stage.notes.append("generator closed")

    return StreamingHttpResponse(parts(), content_type="text/event-stream")


def chatters_in_trio(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            stage.notes.append("generator closed")

    return StreamingHttpResponse(parts())


class File(io.BytesIO):
    def close(self) -> None:
        stage.notes.append("file closed")
        super().close()


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(File(b"0123456789" * 100_000), filename="digits.txt")


async def in_trio(request: HttpRequest) -> HttpResponse:
    await trio.lowlevel.checkpoint()
    thread = await sync_to_async(threading.current_thread)()
    stage.threads.append(thread.name)
    stage.threads.append(threading.current_thread().name)
    return HttpResponse(sniffio.current_async_library())


async def crashes_in_trio(request: HttpRequest) -> HttpResponse:
    await trio.lowlevel.checkpoint()
    raise LookupError("in the async view")


async def waits_in_trio(request: HttpRequest) -> HttpResponse:
    assert stage.trio_entered is not None
    stage.trio_entered.set()
    try:
        await trio.sleep_forever()
    finally:
        stage.notes.append("view cancelled")
    return HttpResponse()


class ClassBased(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(sniffio.current_async_library())


def sync_within(request: HttpRequest) -> HttpResponse:
    @async_to_sync
    async def inner() -> str:
        await trio.lowlevel.checkpoint()
        thread = await sync_to_async(threading.current_thread)()
        return f"{sniffio.current_async_library()} {thread is outer}"

    outer = threading.current_thread()
    return HttpResponse(inner())


def sqlite(request: HttpRequest) -> HttpResponse:
    with database.cursor() as cursor:
        cursor.execute("SELECT 6 * 7")
        return HttpResponse(str(cursor.fetchone()[0]))


urlpatterns = [
    path("hello/", hello, name="hello"),
    path("in_trio/", in_trio),
    path("class_based/", ClassBased.as_view()),
    *[
        path(f"{view.__name__}/", view)
        for view in (
            threads,
            cookies,
            echo,
            form,
            meta,
            crash,
            missing,
            waits,
            leaves_the_worker,
            streams,
            streams_nothing,
            streams_and_crashes,
            streams_for_ever,
            streams_in_trio,
            hops_in_trio,
            events,
            chatters_in_trio,
            file,
            crashes_in_trio,
            waits_in_trio,
            sync_within,
            sqlite,
        )
    ],
]


def noting_middleware(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Any:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        stage.threads.append(threading.current_thread().name)
        response = get_response(request)
        stage.threads.append(threading.current_thread().name)
        response["X-Noted"] = "yes"
        return response

    return middleware


@async_only_middleware
def trio_middleware(get_response: Any) -> Any:
    async def middleware(request: HttpRequest) -> HttpResponseBase:
        await trio.lowlevel.checkpoint()
        response = await get_response(request)
        response["X-Library"] = sniffio.current_async_library()
        return response

    return middleware


class ClassBasedMiddleware:
    """Async only, and marked as such the way Django's documentation tells."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        await trio.lowlevel.checkpoint()
        response = await self.get_response(request)
        response["X-Library"] = sniffio.current_async_library()
        return response


class SyncOnlyMixin(MiddlewareMixin):
    async_capable = False

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response["X-Noted"] = "yes"
        return response


@sync_and_async_middleware
def both_middleware(get_response: Any) -> Any:
    return noting_middleware(get_response)


@pytest.fixture(autouse=True)
def _empty_stage() -> None:
    stage.__init__()  # type: ignore[misc]


# -- the same answers as Django's own ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ("/hello/?name=trio", 200),
        ("/hello", 301),
        ("/nowhere/", 404),
        ("/missing/", 404),
        ("/cookies/", 200),
        ("/meta/?a=1&b=%20", 200),
        ("/streams/", 200),
        ("/streams_nothing/", 200),
        ("/file/", 200),
    ],
)
async def test_answer_is_that_of_djangos_own_handler(where: str, status: int) -> None:
    """Status, headers, cookies and body; Django's test client runs the same view through its WSGI handler."""
    with override_settings(MIDDLEWARE=["django.middleware.common.CommonMiddleware"]):
        ours = await fetch(where, headers=[(b"host", b"testserver"), (b"cookie", b"a=1; b=2")])
        peer = Client(headers={"cookie": "a=1; b=2"})
        django = await sync_to_async(lambda: peer.get(where))()
        content = b"".join(django.streaming_content) if django.streaming else django.content
    assert ours["status"] == django.status_code == status
    assert ours["body"] == content
    expected = {(name.encode(), value.encode()) for name, value in django.items()}
    assert {pair for pair in ours["headers"] if pair[0] != b"Set-Cookie"} - expected <= {(b"Content-Length", b"0")}
    assert sorted(value for name, value in ours["headers"] if name == b"Set-Cookie") == sorted(
        cookie.OutputString().encode() for cookie in django.cookies.values()
    )


def test_project_without_the_application_is_told_what_it_lacks(caplog: pytest.LogCaptureFixture) -> None:
    get_asgi_application()
    assert "INSTALLED_APPS" not in caplog.text
    with modify_settings(INSTALLED_APPS={"remove": "trio_channels"}):
        get_asgi_application()
    assert "trio_channels is not in INSTALLED_APPS" in caplog.text


async def test_request_is_what_the_scope_says() -> None:
    application = get_asgi_application()
    http = HttpCommunicator(application, "PUT", "/app/meta/?a=1", headers=[(b"x-mine", b"\xe4")])
    http.scope |= {"root_path": "/app", "client": ("192.0.2.1", 4000)}
    async with http:
        response = await http.get_response()
    assert response["body"].decode() == (
        '{"method": "PUT", "path": "/app/meta/", "path_info": "/meta/", "query": "a=1", "header": "\\u00e4", '
        '"address": "192.0.2.1", "reversed": "/app/hello/"}'
    )


async def test_cookies_come_in_and_go_out() -> None:
    # HTTP/2 splits the cookies; Django 5.2 by itself takes "1,b=2" for the value of the first.
    response = await fetch("/cookies/", headers=[(b"cookie", b"a=1"), (b"x-other", b"x"), (b"cookie", b"b=2")])
    assert response["body"] == b"a=1 and b=2"
    assert [value.split(b";")[0] for name, value in response["headers"] if name == b"Set-Cookie"] == [
        b"first=1",
        b"second=2",
    ]


async def test_head_request_has_the_headers_of_its_answer() -> None:
    response = await fetch("/file/", "HEAD")
    assert response["status"] == 200
    assert header(response, "Content-Length") == b"1000000"


async def test_view_exception_is_500_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    response = await fetch("/crash/")
    assert response["status"] == 500
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("django.request", logging.ERROR)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


async def test_debug_answers_an_exception_with_its_technical_page() -> None:
    with override_settings(DEBUG=True):
        response = await fetch("/crash/", headers=[(b"accept", b"text/html")])
    assert b"LookupError" in response["body"]
    assert b"in the view" in response["body"]


async def test_query_that_is_no_utf_8_is_a_bad_request(caplog: pytest.LogCaptureFixture, sent_signals: Signals) -> None:
    http = client("/hello/")
    http.scope["query_string"] = b"name=\xff\xfe"
    async with http:
        assert (await http.get_response())["status"] == 400
    assert caplog.messages == ["Bad Request (UnicodeDecodeError)"]
    assert sent_signals.sent == ["started", "finished"]


async def test_another_scope_is_an_error_that_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="Put a ProtocolTypeRouter before it"):
        await get_asgi_application()({"type": "websocket"}, None, None)  # type: ignore[arg-type]


def test_handler_shows_its_urls() -> None:
    assert repr(get_asgi_application()) == f"<DjangoHandler of {__name__}>"


# -- bodies of requests -----------------------------------------------------------------------------------------------


async def test_body_in_several_parts_is_one_body() -> None:
    http = client("/echo/", "POST", headers=[(b"content-type", b"text/x-mine"), (b"content-length", b"6")])
    async with http:
        for part, more in ((b"ab", True), (b"", True), (b"cd", True), (b"ef", False)):
            await http.send_input({"type": "http.request", "body": part, "more_body": more})
        http._request_sent = True
        response = await http.get_response()
    assert response["body"] == b"abcdef"
    assert header(response, "Content-Type") == b"text/x-mine"


MULTIPART = [(b"content-type", b"multipart/form-data; boundary=frontier")]


def upload(content: bytes) -> bytes:
    return (
        b'--frontier\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n'
        b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="f.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\n" + content + b"\r\n--frontier--\r\n"
    )


@pytest.mark.parametrize(("size", "kind"), [(10, "InMemoryUploadedFile"), (200_000, "TemporaryUploadedFile")])
async def test_upload_is_in_memory_up_to_the_setting_and_on_disk_beyond(size: int, kind: str) -> None:
    body = upload(b"x" * size)
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=100_000):
        http = client("/form/", "POST", headers=[*MULTIPART, (b"content-length", b"%d" % len(body))])
        async with http:
            for start in range(0, len(body), 65_536):
                part = body[start : start + 65_536]
                more = start + 65_536 < len(body)
                await http.send_input({"type": "http.request", "body": part, "more_body": more})
            http._request_sent = True
            response = await http.get_response(timeout=30)
    assert response["status"] == 200
    assert response["body"].decode() == (
        '{"post": {"text": "hello"}, "files": {"file": ["' + kind + '", "' + "x" * size + '"]}}'
    )


async def test_large_body_is_written_in_a_thread() -> None:
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=10, DATA_UPLOAD_MAX_MEMORY_SIZE=None):
        http = client("/echo/", "POST", headers=[(b"content-length", b"40")])
        async with http:
            before = thread_pool().statistics().calls
            for more in (True, False):
                await http.send_input({"type": "http.request", "body": b"x" * 20, "more_body": more})
            http._request_sent = True
            response = await http.get_response()
            assert thread_pool().statistics().calls - before > 2
    assert response["body"] == b"x" * 40


@pytest.mark.parametrize("length", [b"5", None], ids=["too small", "none"])
async def test_body_that_is_too_large_is_counted_and_not_trusted(
    length: bytes | None, caplog: pytest.LogCaptureFixture, sent_signals: Signals
) -> None:
    headers = [(b"content-length", length)] if length else []
    with override_settings(TRIO_CHANNELS={"MAX_UPLOAD_SIZE": 100}):
        http = client("/echo/", "POST", headers=headers)
        async with http:
            for _ in range(3):
                await http.send_input({"type": "http.request", "body": b"x" * 40, "more_body": True})
            http._request_sent = True
            await http.send_input({"type": "http.request", "body": b"", "more_body": False})
            response = await http.get_response()
    assert response["status"] == 413
    assert sent_signals.sent == ["started", "finished"]
    assert caplog.messages == [
        "the request body is longer than 100 bytes (MAX_UPLOAD_SIZE); got at least 120: answering 413"
    ]


@pytest.mark.parametrize("length", [b"101", b"9" * 30], ids=["one more", "no end"])
async def test_body_announced_as_too_large_is_not_read(
    length: bytes, caplog: pytest.LogCaptureFixture, sent_signals: Signals
) -> None:
    with override_settings(TRIO_CHANNELS={"MAX_UPLOAD_SIZE": 100, "CLOSE_TIMEOUT": 0.01}):
        http = client("/echo/", "POST", headers=[(b"content-length", length)])
        async with http:  # the body does not come
            http._request_sent = True
            response = await http.get_response(timeout=30)
    assert response["status"] == 413
    assert sent_signals.sent == ["started", "finished"]
    got = f"got Content-Length: {int(length[:20])}"
    assert caplog.messages == [f"the request body is longer than 100 bytes (MAX_UPLOAD_SIZE); {got}: answering 413"]


async def test_body_of_exactly_the_limit_is_taken() -> None:
    with override_settings(TRIO_CHANNELS={"MAX_UPLOAD_SIZE": 100}):
        response = await fetch("/echo/", "POST", b"x" * 100, [(b"content-length", b"100")])
    assert response["status"] == 200


async def test_client_that_leaves_early_reaches_no_view(
    sent_signals: Signals,
) -> None:
    async with client("/echo/", "POST") as http:
        await http.send_input({"type": "http.request", "body": b"half", "more_body": True})
        await http.disconnect()
        assert thread_pool().statistics().calls == 0
    assert sent_signals.sent == []


# -- threads ----------------------------------------------------------------------------------------------------------


async def test_middleware_view_and_signals_share_one_thread_and_one_hop() -> None:
    def note(**kwargs: Any) -> None:
        stage.threads.append(threading.current_thread().name)

    signals.request_started.connect(note)
    signals.request_finished.connect(note)
    try:
        with override_settings(MIDDLEWARE=[f"{__name__}.noting_middleware", f"{__name__}.both_middleware"]):
            response = await fetch("/threads/")
            assert thread_pool().statistics().calls == 1
    finally:
        signals.request_started.disconnect(note)
        signals.request_finished.disconnect(note)
    assert header(response, "X-Noted") == b"yes"
    assert stage.threads == ["trio-channels thread 1"] * 7


async def test_sync_views_run_in_parallel_up_to_the_number_of_workers() -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 2}):
        async with client("/waits/") as first, client("/waits/") as second, client("/hello/") as third:
            for http in (first, second, third):
                await http.send_request()
            await until(lambda: thread_pool().statistics().waiting == 1)
            assert thread_pool().statistics().leased == 2
            stage.go_on.set()
            for http in (first, second, third):
                assert (await http.get_response(timeout=30))["status"] == 200


async def test_database_connection_is_closed_with_the_request(
    transactional_db: None,
) -> None:
    response = await fetch("/sqlite/")
    assert response["body"] == b"42"


async def test_sync_view_calls_async_code_on_its_own_thread() -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1}):
        assert (await fetch("/sync_within/"))["body"] == b"trio True"


# -- async views ------------------------------------------------------------------------------------------------------


async def test_async_view_runs_in_trio() -> None:
    response = await fetch("/in_trio/")
    assert response["body"] == b"trio"
    worker, loop = stage.threads
    assert worker.startswith("trio-channels thread")
    assert loop == threading.current_thread().name


async def test_async_class_based_view_runs_in_trio() -> None:
    assert (await fetch("/class_based/"))["body"] == b"trio"


async def test_async_view_exception_is_500_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert (await fetch("/crashes_in_trio/"))["status"] == 500
    assert [record.name for record in caplog.records] == ["django.request"]


MIXED = [["trio_middleware", "noting_middleware"], ["SyncOnlyMixin", "ClassBasedMiddleware"]]


@pytest.mark.parametrize("names", [*MIXED, *(names[::-1] for names in MIXED)], ids=",".join)
@pytest.mark.parametrize("where", ["/hello/", "/in_trio/"])
async def test_sync_and_async_middleware_mix_around_any_view(where: str, names: list[str]) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.{name}" for name in names]):
        response = await fetch(where)
    assert response["status"] == 200
    assert header(response, "X-Library") == b"trio"
    assert header(response, "X-Noted") == b"yes"


async def test_async_view_is_cancelled_when_its_client_leaves(
    sent_signals: Signals,
) -> None:
    stage.trio_entered = trio.Event()
    async with client("/waits_in_trio/") as http:
        await http.send_request()
        await stage.trio_entered.wait()
        await http.disconnect(timeout=30)
    assert stage.notes == ["view cancelled"]
    assert sent_signals.sent == ["started", "finished"]


async def test_async_view_that_the_server_cancels_ends_its_request(
    sent_signals: Signals,
) -> None:
    stage.trio_entered = trio.Event()
    async with client("/waits_in_trio/") as http:
        await http.send_request()
        await stage.trio_entered.wait()
    assert stage.notes == ["view cancelled"]
    assert sent_signals.sent == ["started", "finished"]


# -- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["client leaves", "server cancels"])
async def test_sync_view_runs_to_its_end_whatever_happens_to_its_client(
    way: str, sent_signals: Signals, caplog: pytest.LogCaptureFixture
) -> None:
    async with client("/waits/") as http:
        await http.send_request()
        await until(stage.entered.is_set)
        if way == "client leaves":
            await http.send_input({"type": "http.disconnect"})
            await trio.testing.wait_all_tasks_blocked()
            assert sent_signals.sent == ["started"]
            stage.go_on.set()
            await http.wait(timeout=30)
        else:
            http.stop()
            stage.go_on.set()
    assert stage.notes == ["view ended"]
    assert sent_signals.sent == ["started", "finished"]
    assert not caplog.records, "a client that leaves is no error"


async def test_request_that_waits_for_a_thread_can_be_cancelled() -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1}):
        async with client("/waits/") as first:
            await first.send_request()
            await until(stage.entered.is_set)
            async with client("/hello/") as second:
                await second.send_request()
                await until(lambda: thread_pool().statistics().waiting == 1)
            assert thread_pool().statistics().waiting == 0
            stage.go_on.set()
            await first.get_response(timeout=30)


async def test_view_that_ends_with_system_exit_finishes_its_request(
    sent_signals: Signals,
) -> None:
    async with client("/leaves_the_worker/") as http:
        await http.send_request()
        with pytest.raises(SystemExit):
            await http.wait(timeout=30)
    assert sent_signals.sent == ["started", "finished"]


# -- streams ----------------------------------------------------------------------------------------------------------


async def test_stream_is_sent_in_its_parts_without_the_empty_ones() -> None:
    async with client("/streams/") as http:
        await http.send_request()
        messages = [await http.receive_output() for _ in range(5)]
        await http.wait()
    assert [message.get("body") for message in messages[1:]] == [b"a", b"b", b"c", None]
    assert [message.get("more_body", False) for message in messages[1:]] == [True, True, True, False]


async def test_async_stream_runs_in_trio() -> None:
    assert (await fetch("/streams_in_trio/"))["body"] == b"atbtct"


async def test_async_stream_calls_run_on_its_held_thread() -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1}):
        assert (await fetch("/hops_in_trio/"))["body"] == b"ABC"


# Django's GZipMiddleware wraps an async generator in two, one of which nobody closes; the view's own is closed.
@pytest.mark.filterwarnings("ignore:Async generator .*awrapper:ResourceWarning")
@pytest.mark.parametrize("middleware", [[], ["django.middleware.gzip.GZipMiddleware"]], ids=["plain", "gzip"])
@pytest.mark.parametrize("where", ["/streams_for_ever/", "/chatters_in_trio/", "/events/"])
async def test_endless_stream_ends_when_its_client_leaves_and_is_closed(
    where: str, middleware: list[str], sent_signals: Signals
) -> None:
    with override_settings(MIDDLEWARE=middleware):
        async with client(where, headers=[(b"accept-encoding", b"gzip")]) as http:
            await http.send_request()
            assert (await http.receive_output())["status"] == 200
            assert (await http.receive_output())["more_body"] is True
            await http.disconnect(timeout=30)
            assert stage.notes == ["generator closed"]
            gc.collect()
            await trio.testing.wait_all_tasks_blocked()
    assert sent_signals.sent == ["started", "finished"]


async def test_sync_stream_keeps_its_thread() -> None:
    async with client("/streams_for_ever/") as http:
        await http.send_request()
        for _ in range(5):
            await http.receive_output()
    assert len(set(stage.threads)) == 1


@pytest.mark.parametrize("where", ["/streams_for_ever/", "/events/"])
async def test_stream_that_the_server_cancels_is_closed(where: str, sent_signals: Signals) -> None:
    async with client(where) as http:
        await http.send_request()
        await http.receive_output()
        await http.receive_output()
    assert stage.notes == ["generator closed"]
    assert sent_signals.sent == ["started", "finished"]


async def test_failing_stream_ends_its_connection_and_is_closed(
    sent_signals: Signals,
) -> None:
    async with client("/streams_and_crashes/") as http:
        await http.send_request()
        assert (await http.receive_output())["status"] == 200
        assert (await http.receive_output())["body"] == b"a"
        with pytest.raises(LookupError, match="in the stream") as raised:
            await http.wait()
    assert raised.value.__notes__ == ["on http /streams_and_crashes/"]
    assert sent_signals.sent == ["started", "finished"]


async def test_file_is_sent_in_large_blocks_and_closed() -> None:
    async with client("/file/") as http:
        await http.send_request()
        start = await http.receive_output()
        sizes = []
        while (part := await http.receive_output()).get("more_body"):
            sizes.append(len(part["body"]))
        await http.wait()
    assert (b"Content-Length", b"1000000") in start["headers"]
    assert sizes == [262_144] * 3 + [213_568]
    assert stage.notes == ["file closed"]


async def test_client_that_leaves_in_a_file_has_it_closed() -> None:
    async with client("/file/") as http:
        await http.send_request()
        await http.receive_output()
        await http.disconnect()
    assert stage.notes == ["file closed"]


# -- the entry point --------------------------------------------------------------------------------------------------


def test_handler_is_a_django_handler_for_tools() -> None:
    handler = get_asgi_application()
    assert isinstance(handler, DjangoHandler)
    assert isinstance(handler, ASGIHandler)


async def test_many_requests_leave_nothing_behind() -> None:
    application = get_asgi_application()

    async def one() -> None:
        http = ApplicationCommunicator(application, {**client("/hello/").scope})
        async with http:
            await http.send_input({"type": "http.request"})
            assert (await http.receive_output())["status"] == 200

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)
    statistics = thread_pool().statistics()
    assert (statistics.leased, statistics.waiting) == (0, 0)
    assert statistics.workers <= 10
