"""Each case of Django's tests of its handlers (``tests/asgi``, ``tests/handlers`` of Django 5.2), and our tests of it.

:data:`CASES` is the list. Most of the tests are here; those named with a module are in another one of this package.
Where trio-channels differs, a comment above the case says so.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
import sniffio
import trio
import trio.lowlevel
from django.core import signals
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, RequestDataTooBig
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.test import override_settings
from django.urls import path, re_path

from trio_channels._http.handler import DjangoHandler
from trio_channels.exceptions import ServerProtocolError
from trio_channels.testing import HttpCommunicator

from .common import Signals, client, fetch, header, until

HANDLER, EQUIVALENCE, STATIC = "_http.test_handler", "_http.test_equivalence", "test_staticfiles"

#: Django's test -> our tests, with the module of those that are not here.
CASES: dict[str, tuple[str, ...]] = {
    # -- tests/asgi/tests.py
    "asgi: get_asgi_application": (f"{HANDLER}::test_answer_is_that_of_djangos_own_handler",),
    "asgi: file_response": (
        f"{HANDLER}::test_answer_is_that_of_djangos_own_handler",
        f"{HANDLER}::test_file_is_sent_in_large_blocks_and_closed",
    ),
    "asgi: static_file_response": (f"{STATIC}::test_file_is_served_with_its_type",),
    "asgi: headers": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    "asgi: post_body": (f"{HANDLER}::test_body_in_several_parts_is_one_body",),
    "asgi: request_too_big_request_error": ("test_request_too_big_is_answered_and_finished",),
    "asgi: meta_not_modified_with_repeat_headers": ("test_header_may_come_many_times",),
    "asgi: underscores_in_headers_ignored": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    "asgi: cancel_post_request_with_sync_processing": ("test_sync_view_reads_its_body_after_its_client_has_left",),
    "asgi: untouched_request_body_gets_closed": ("test_body_that_nobody_has_read_is_closed",),
    "asgi: get_query_string": ("test_query_string_may_be_bytes_or_text",),
    "asgi: disconnect": ("test_client_that_leaves_at_once_reaches_nothing",),
    "asgi: disconnect_both_return": ("test_client_may_leave_while_its_response_is_sent",),
    # While a sync view runs, nobody watches its client. The server gets the response, and knows of the disconnect.
    "asgi: disconnect_with_body": (
        f"{HANDLER}::test_sync_view_runs_to_its_end_whatever_happens_to_its_client",
        f"{HANDLER}::test_async_view_is_cancelled_when_its_client_leaves",
    ),
    # Ours raises ServerProtocolError, and only while an async view runs or a response is streamed.
    "asgi: assert_in_listen_for_disconnect": ("test_event_that_is_none_of_http_fails_the_request",),
    "asgi: delayed_disconnect_with_body": (
        f"{HANDLER}::test_sync_view_runs_to_its_end_whatever_happens_to_its_client",
    ),
    # Ours raises ConfigurationError, which is a ValueError.
    "asgi: wrong_connection_type": (f"{HANDLER}::test_another_scope_is_an_error_that_says_what_is_missing",),
    "asgi: non_unicode_query_string": (f"{HANDLER}::test_query_that_is_no_utf_8_is_a_bad_request",),
    # For a sync view. Different worker threads may send the two signals of an async view.
    "asgi: request_lifecycle_signals_dispatched_with_thread_sensitive": (
        f"{HANDLER}::test_middleware_view_and_signals_share_one_thread_and_one_hop",
    ),
    "asgi: concurrent_async_uses_multiple_thread_pools": (
        f"{HANDLER}::test_sync_views_run_in_parallel_up_to_the_number_of_workers",
    ),
    "asgi: asyncio_cancel_error": (
        f"{HANDLER}::test_async_view_runs_in_trio",
        f"{HANDLER}::test_async_view_is_cancelled_when_its_client_leaves",
        "test_request_finished_names_the_handler_and_comes_from_a_worker",
    ),
    "asgi: asyncio_streaming_cancel_error": (
        f"{HANDLER}::test_endless_stream_ends_when_its_client_leaves_and_is_closed",
    ),
    "asgi: streaming": (f"{HANDLER}::test_async_stream_runs_in_trio",),
    "asgi: streaming_disconnect": (f"{HANDLER}::test_endless_stream_ends_when_its_client_leaves_and_is_closed",),
    "asgi: body_size_not_exceeded_without_content_length": ("test_body_is_limited_by_djangos_setting",),
    "asgi: body_size_exceeded_without_content_length": ("test_body_is_limited_by_djangos_setting",),
    "asgi: body_size_check_fires_before_read": ("test_body_that_is_too_long_is_not_read",),
    "asgi: post_size_exceeded_without_content_length": ("test_form_is_limited_by_djangos_setting",),
    "asgi: no_limit": ("test_body_is_limited_by_djangos_setting",),
    "asgi: read_body_no_limit": ("test_body_is_limited_by_djangos_setting",),
    "asgi: non_multipart_body_size_enforced": ("test_body_is_limited_by_djangos_setting",),
    "asgi: multipart_file_upload_not_limited_by_data_upload_max": ("test_file_is_not_limited_by_that_setting",),
    "asgi: multipart_file_upload_limited_by_file_upload_max": ("test_file_is_not_limited_by_that_setting",),
    "asgi: read_body_buffers_all_chunks": ("test_body_is_limited_by_djangos_setting",),
    "asgi: read_body_multipart_not_limited": ("test_file_is_not_limited_by_that_setting",),
    # -- tests/handlers/test_exception.py
    "exception: data_upload_max_memory_size_exceeded": ("test_form_is_limited_by_djangos_setting",),
    "exception: data_upload_max_number_fields_exceeded": ("test_form_is_limited_by_djangos_setting",),
    "exception: data_upload_max_number_files_exceeded": ("test_form_is_limited_by_djangos_setting",),
    # -- tests/handlers/tests.py; ASGI tests show the cases of WSGI
    "handlers: middleware_initialized": ("test_middleware_that_is_none_is_an_error_at_once",),
    "handlers: bad_path_info": ("test_path_that_leads_nowhere_is_not_found",),
    "handlers: non_ascii_query_string": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    "handlers: non_ascii_cookie": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    "handlers: invalid_unicode_cookie": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    "handlers: invalid_multipart_boundary": ("test_malformed_upload_is_a_bad_request",),
    "handlers: no_transaction": ("test_view_is_in_a_transaction_where_the_settings_say_so",),
    "handlers: auto_transaction": ("test_view_is_in_a_transaction_where_the_settings_say_so",),
    "handlers: auto_transaction_async_view": ("test_async_view_cannot_be_in_a_transaction",),
    "handlers: no_auto_transaction": ("test_view_is_in_a_transaction_where_the_settings_say_so",),
    "handlers: request_signals": (f"{HANDLER}::test_middleware_view_and_signals_share_one_thread_and_one_hop",),
    "handlers: request_signals_streaming_response": ("test_stream_is_finished_at_its_end",),
    "handlers: async_view": (f"{EQUIVALENCE}::test_middleware_stack_does_as_under_djangos_handler",),
    "handlers: sync_view": (f"{EQUIVALENCE}::test_middleware_stack_does_as_under_djangos_handler",),
    "handlers: suspiciousop_in_view_returns_400": (
        f"{EQUIVALENCE}::test_middleware_stack_does_as_under_djangos_handler",
    ),
    "handlers: bad_request_in_view_returns_400": (
        f"{EQUIVALENCE}::test_middleware_stack_does_as_under_djangos_handler",
    ),
    "handlers: invalid_urls": ("test_path_that_leads_nowhere_is_not_found",),
    "handlers: environ_path_info_type": ("test_path_that_leads_nowhere_is_not_found",),
    "handlers: handle_accepts_httpstatus_enum_value": ("test_status_may_be_of_the_enumeration",),
    "handlers: middleware_returns_none": ("test_middleware_that_is_none_is_an_error_at_once",),
    "handlers: no_response": ("test_view_without_a_response_is_an_error_that_names_it",),
    "handlers: unawaited_response": ("test_view_without_a_response_is_an_error_that_names_it",),
    # A sync iterator runs on a thread, an async one on Trio, so neither causes a warning.
    "handlers: streaming": (f"{HANDLER}::test_stream_is_sent_in_its_parts_without_the_empty_ones",),
    "handlers: async_streaming": (f"{HANDLER}::test_async_stream_runs_in_trio",),
    "handlers: sync_streaming": (f"{HANDLER}::test_stream_is_sent_in_its_parts_without_the_empty_ones",),
    "handlers: get_script_name": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    "handlers: get_script_name_double_slashes": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    "handlers: root_path": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    "handlers: force_script_name": ("test_request_holds_what_djangos_handler_makes_of_its_scope",),
    # -- tests/handlers/tests_custom_error_handlers.py
    "errors: handler_renders_template_response": ("test_error_handler_may_render_a_template",),
}


@pytest.mark.parametrize("case", CASES)
def test_case_of_djangos_is_shown_by_a_test_that_exists(case: str) -> None:
    for shown_by in CASES[case]:
        module, _, name = shown_by.rpartition("::")
        tests = importlib.import_module(f"tests.{module}") if module else importlib.import_module(__name__)
        assert callable(getattr(tests, name))


# -- a project in a module --------------------------------------------------------------------------------------------

seen: dict[str, Any] = {}


def shows(request: HttpRequest) -> JsonResponse:
    """All that a request holds."""
    meta = {name: value for name, value in sorted(request.META.items()) if isinstance(value, str)}
    return JsonResponse(
        {
            "meta": meta,
            "get": dict(request.GET.lists()),
            "cookies": request.COOKIES,
            "paths": [request.path, request.path_info, request.get_full_path()],
            "scheme": request.scheme,
            "content": [request.content_type, request.content_params],
        }
    )


def reads(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


def reads_later(request: HttpRequest) -> HttpResponse:
    seen["entered"].set()
    seen["go on"].wait(30)
    seen["body"] = request.body
    return HttpResponse()


def reads_form(request: HttpRequest) -> JsonResponse:
    kinds = {name: [type(file).__name__, len(file.read())] for name, file in request.FILES.items()}
    return JsonResponse({"post": len(request.POST), "files": kinds})


def ignores(request: HttpRequest) -> HttpResponse:
    seen["stream"] = request._stream  # type: ignore[attr-defined]
    return HttpResponse(status=204)


async def waits(request: HttpRequest) -> HttpResponse:
    await trio.sleep_forever()
    return HttpResponse()


def in_transaction(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(connection.in_atomic_block))


# The decorator marks the view itself, so each variant needs a function of its own.
@transaction.non_atomic_requests
def not_in_transaction(request: HttpRequest) -> HttpResponse:
    return in_transaction(request)


@transaction.non_atomic_requests(using=None)
def not_using_none(request: HttpRequest) -> HttpResponse:
    return in_transaction(request)


@transaction.non_atomic_requests(using="another")
def not_using_another(request: HttpRequest) -> HttpResponse:
    return in_transaction(request)


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(sniffio.current_async_library())


def denies(request: HttpRequest) -> HttpResponse:
    raise PermissionDenied


def returns_nothing(request: HttpRequest) -> None:
    return


class ReturnsNothing:
    def __call__(self, request: HttpRequest) -> None:
        return


class ReturnsCoroutine:
    def __call__(self, request: HttpRequest) -> Any:
        seen["coroutine"] = async_view(request)
        return seen["coroutine"]


def streams(request: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(iter([b"streamed ", b"content"]))


def status(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=HTTPStatus.ACCEPTED)


def handler403(request: HttpRequest, exception: Exception) -> TemplateResponse:
    return TemplateResponse(request, "denied.html", status=403)


urlpatterns = [
    *(path(f"{view.__name__}/", view) for view in (reads, reads_later, reads_form, ignores, waits)),
    *(path(f"{view.__name__}/", view) for view in (in_transaction, async_view, denies, streams, status)),
    path("not_in_transaction/", not_in_transaction),
    path("not_using_none/", not_using_none),
    path("not_using_another/", not_using_another),
    path("returns_nothing/", returns_nothing),
    path("instance_returns_nothing/", ReturnsNothing()),
    path("returns_coroutine/", ReturnsCoroutine()),
    re_path(r"^shows/", shows),
]


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()
    seen["entered"], seen["go on"] = threading.Event(), threading.Event()


# -- requests ---------------------------------------------------------------------------------------------------------


def asked_of_django(scope: dict[str, Any]) -> tuple[int, bytes]:
    """The answer of Django's own handler, on asyncio."""
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        events = [{"type": "http.request"}]

        async def receive() -> dict[str, Any]:
            return events.pop() if events else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await ASGIHandler()(scope, receive, send)

    # In a thread of its own, as this one runs Trio.
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    thread.join()
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


@pytest.mark.filterwarnings("ignore:Parsing cookies")
@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"headers": [(b"content-type", b"text/plain; charset=latin-1"), (b"content-length", b"77")]}, {}),
        ({"headers": [(b"referer", b"Scotland"), (b"referer", b"Wales")]}, {}),
        ({"headers": [(b"x_forged", b"1"), (b"x-true", b"2")]}, {}),
        ({"headers": [(b"x-long", b"x" * 100_000)]}, {}),
        *(({"query_string": query}, {}) for query in (b"a=caf%C3%A9", b"a=caf\xc3\xa9", b"a=caf%E9", b"a=caf\xe9")),
        ({"headers": [(b"cookie", 'want="café"'.encode())]}, {}),
        ({"headers": [(b"cookie", b"x=W\x03c(h]\x8e")]}, {}),
        ({"root_path": "/root", "path": "/root/shows/here"}, {}),
        ({"root_path": "/root", "path": "/shows/here"}, {}),
        ({"root_path": "/mst", "path": "/mst/shows//double//slashes"}, {}),
        ({"path": "/forced/shows/"}, {"FORCE_SCRIPT_NAME": "/forced"}),
        ({"path": "/forced/shows/", "root_path": "/root"}, {"FORCE_SCRIPT_NAME": "/forced"}),
        ({"path": "/shows/♥ %25 \ufffd"}, {}),
        ({"client": ("192.0.2.1", 4_000), "server": ("example.com", 443), "scheme": "https"}, {}),
        ({"method": "delete"}, {}),
    ],
)
async def test_request_holds_what_djangos_handler_makes_of_its_scope(
    change: dict[str, Any], settings: dict[str, Any]
) -> None:
    http = client("/shows/")
    http.scope |= change
    with override_settings(**settings):
        async with http:
            response = await http.get_response(timeout=30)
        expected = asked_of_django(dict(http.scope))
    assert (response["status"], response["body"]) == expected


async def test_header_may_come_many_times() -> None:
    response = await fetch("/shows/", headers=[(b"foo", b"bar")] * 20_000)
    assert len(json.loads(response["body"])["meta"]["HTTP_FOO"].split(",")) == 20_000


@pytest.mark.parametrize("query", [b"name=Ada", "name=Ada"])
async def test_query_string_may_be_bytes_or_text(query: Any) -> None:
    http = client("/shows/")
    http.scope["query_string"] = query
    async with http:
        response = await http.get_response(timeout=30)
    assert json.loads(response["body"])["get"] == {"name": ["Ada"]}


@pytest.mark.parametrize("where", ["/%ED", "/nowhere/", "/♥/", "/\ufffd/", "//", ""])
async def test_path_that_leads_nowhere_is_not_found(where: str) -> None:
    http = client("/")
    http.scope["path"] = where
    async with http:
        assert (await http.get_response(timeout=30))["status"] == 404


async def test_request_too_big_is_answered_and_finished(sent_signals: Signals) -> None:
    class TooBig(ASGIRequest):
        def __init__(self, scope: Any, body: Any) -> None:
            seen["stream"] = body
            raise RequestDataTooBig

    class Handler(DjangoHandler):
        request_class = TooBig

    async with HttpCommunicator(Handler(), "GET", "/shows/") as http:
        response = await http.get_response(timeout=30)
    assert response["status"] == 413
    assert sent_signals.sent == ["started", "finished"]
    assert seen["stream"].closed


async def test_request_finished_names_the_handler_and_comes_from_a_worker() -> None:
    class Handler(DjangoHandler):
        pass

    finished: list[tuple[Any, threading.Thread]] = []

    def note(sender: Any, **_kwargs: Any) -> None:
        finished.append((sender, threading.current_thread()))

    signals.request_finished.connect(note)
    try:
        async with HttpCommunicator(Handler(), "GET", "/async_view/") as http:
            await http.get_response(timeout=30)
        async with HttpCommunicator(Handler(), "GET", "/waits/") as http:
            await http.send_request()
            await http.disconnect(timeout=30)
    finally:
        signals.request_finished.disconnect(note)
    assert [sender for sender, _ in finished] == [Handler, Handler]
    assert threading.current_thread() not in {thread for _, thread in finished}


# -- leaving ----------------------------------------------------------------------------------------------------------


async def test_client_that_leaves_at_once_reaches_nothing(sent_signals: Signals) -> None:
    async with client("/shows/") as http:
        await http.disconnect(timeout=30)
        assert await http.receive_nothing()
    assert sent_signals.sent == []


async def test_client_may_leave_while_its_response_is_sent() -> None:
    async with client("/shows/", "POST", b"some body") as http:
        await http.send_request()
        assert (await http.receive_output(timeout=30))["status"] == 200
        await http.receive_output(timeout=30)
        await http.disconnect(timeout=30)


async def test_sync_view_reads_its_body_after_its_client_has_left() -> None:
    async with client("/reads_later/", "POST", b"the body") as http:
        await http.send_request()
        await until(seen["entered"].is_set)
        await http.send_input({"type": "http.disconnect"})
        seen["go on"].set()
        await http.wait(timeout=30)
    assert seen["body"] == b"the body"


async def test_event_that_is_none_of_http_fails_the_request(sent_signals: Signals) -> None:
    for event in ("http.not_a_real_message", "http.request"):
        async with client("/waits/") as http:
            await http.send_request()
            await http.send_input({"type": event})
            with pytest.raises(ServerProtocolError, match=event):
                await http.wait(timeout=30)
    assert sent_signals.sent == ["started", "finished"] * 2


async def test_stream_is_finished_at_its_end(sent_signals: Signals) -> None:
    async with client("/streams/") as http:
        await http.send_request()
        await http.receive_output(timeout=30)
        assert (await http.receive_output(timeout=30))["body"] == b"streamed "
        assert (await http.receive_output(timeout=30))["body"] == b"content"
        await http.wait(timeout=30)
    assert sent_signals.sent == ["started", "finished"]


# -- bodies -----------------------------------------------------------------------------------------------------------


async def test_body_that_nobody_has_read_is_closed() -> None:
    response = await fetch("/ignores/", "POST", b"nobody reads this")
    assert (response["status"], response["body"]) == (204, b"")
    assert seen["stream"].closed


async def send_body(http: HttpCommunicator, parts: list[bytes]) -> dict[str, Any]:
    async with http:
        for number, part in enumerate(parts, start=1):
            await http.send_input({"type": "http.request", "body": part, "more_body": number < len(parts)})
        http._request_sent = True
        return await http.get_response(timeout=30)


@pytest.mark.parametrize(
    ("limit", "sizes", "status"),
    [
        (5, [5], 200),
        (5, [10], 400),
        (15, [10, 10, 10], 400),
        (30, [10, 10, 10], 200),
        (10, [100], 400),
        (None, [100, 100], 200),
    ],
)
async def test_body_is_limited_by_djangos_setting(limit: int | None, sizes: list[int], status: int) -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=limit):
        response = await send_body(client("/reads/", "POST"), [b"x" * size for size in sizes])
    assert response["status"] == status
    if status == 200:
        assert response["body"] == str(sum(sizes)).encode()


async def test_body_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Tracking(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            calls.append("read")
            return super().read(*args)

    class Request(ASGIRequest):
        def __init__(self, scope: Any, body: Any) -> None:
            super().__init__(scope, Tracking(body.read()))

    class Handler(DjangoHandler):
        request_class = Request

    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=5):
        response = await send_body(HttpCommunicator(Handler(), "POST", "/reads/"), [b"x" * 10])
    assert response["status"] == 400
    assert calls == []


FORM = [(b"content-type", b"application/x-www-form-urlencoded")]
MULTIPART = [(b"content-type", b"multipart/form-data; boundary=frontier")]


def multipart(files: dict[str, bytes]) -> bytes:
    parts = (
        b'--frontier\r\nContent-Disposition: form-data; name="%b"; filename="%b.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n%b\r\n" % (name.encode(), name.encode(), content)
        for name, content in files.items()
    )
    return b"".join(parts) + b"--frontier--\r\n"


@pytest.mark.parametrize(
    ("setting", "headers", "body"),
    [
        ("DATA_UPLOAD_MAX_MEMORY_SIZE", FORM, b"a=" + b"x" * 20),
        ("DATA_UPLOAD_MAX_NUMBER_FIELDS", FORM, b"&".join([b"a=1"] * 13)),
        ("DATA_UPLOAD_MAX_NUMBER_FILES", MULTIPART, multipart({f"f{number}": b"x" for number in range(13)})),
    ],
)
async def test_form_is_limited_by_djangos_setting(setting: str, headers: Any, body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    with override_settings(**{setting: 12}):
        refused = await fetch("/reads_form/", "POST", body, headers)
    taken = await fetch("/reads_form/", "POST", body, headers)
    assert (refused["status"], taken["status"]) == (400, 200)


@pytest.mark.parametrize("claimed", [None, 9], ids=["right length", "understated length"])
async def test_file_is_not_limited_by_that_setting(claimed: int | None) -> None:
    body = multipart({"file": b"x" * 100})
    headers = [*MULTIPART, (b"content-length", b"%d" % (claimed or len(body)))]
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10, FILE_UPLOAD_MAX_MEMORY_SIZE=10):
        parts = [body[start : start + 50] for start in range(0, len(body), 50)]
        response = await send_body(client("/reads_form/", "POST", headers=headers), parts)
    assert json.loads(response["body"])["files"] == {"file": ["TemporaryUploadedFile", 100]}


async def test_malformed_upload_is_a_bad_request() -> None:
    headers = [(b"content-type", b"multipart/form-data; boundary=WRONG\x07"), (b"content-length", b"4")]
    assert (await fetch("/reads_form/", "POST", b"what", headers))["status"] == 400


# -- transactions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "with_setting"),
    [("in_transaction", True), ("not_in_transaction", False), ("not_using_none", False), ("not_using_another", True)],
)
async def test_view_is_in_a_transaction_where_the_settings_say_so(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch, where: str, with_setting: bool
) -> None:
    assert (await fetch(f"/{where}/"))["body"] == b"False"
    monkeypatch.setitem(database, "ATOMIC_REQUESTS", True)
    assert (await fetch(f"/{where}/"))["body"] == str(with_setting).encode()


async def test_async_view_cannot_be_in_a_transaction(
    sqlite_database: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sqlite_database, "ATOMIC_REQUESTS", True)
    assert (await fetch("/async_view/"))["status"] == 500
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "You cannot use ATOMIC_REQUESTS with async views."


# -- middleware and views that are wrong ------------------------------------------------------------------------------


def empty_middleware(get_response: Any) -> None:
    return


def useless_middleware(get_response: Any) -> Callable[[HttpRequest], Any]:
    raise NotImplementedError


useless_middleware.sync_capable = False  # type: ignore[attr-defined]


def test_middleware_that_is_none_is_an_error_at_once() -> None:
    with (
        override_settings(MIDDLEWARE=[f"{__name__}.empty_middleware"]),
        pytest.raises(ImproperlyConfigured, match="empty_middleware returned None"),
    ):
        DjangoHandler()
    with (
        override_settings(MIDDLEWARE=[f"{__name__}.useless_middleware"]),
        pytest.raises(RuntimeError, match="useless_middleware must have at least one of sync_capable/async_capable"),
    ):
        DjangoHandler()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("returns_nothing", "The view tests._http.test_djangos_cases.returns_nothing didn't return an HttpResponse"),
        ("instance_returns_nothing", "The view tests._http.test_djangos_cases.ReturnsNothing.__call__ didn't"),
        ("returns_coroutine", "It returned an unawaited coroutine instead"),
    ],
)
async def test_view_without_a_response_is_an_error_that_names_it(
    where: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await fetch(f"/{where}/"))["status"] == 500
    (record,) = caplog.records
    assert record.exc_info is not None
    assert message in str(record.exc_info[1])
    if "coroutine" in seen:
        seen["coroutine"].close()


async def test_status_may_be_of_the_enumeration() -> None:
    assert (await fetch("/status/"))["status"] == 202


def looking_middleware(get_response: Any) -> Any:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        response: Any = get_response(request)
        response["X-Length"] = str(len(response.content))
        return response  # type: ignore[no-any-return]

    return middleware


async def test_error_handler_may_render_a_template() -> None:
    templates = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"denied.html": "denied by template"})]},
    }
    with override_settings(TEMPLATES=[templates], MIDDLEWARE=[f"{__name__}.looking_middleware"]):
        response = await fetch("/denies/")
    assert (response["status"], response["body"]) == (403, b"denied by template")
    assert header(response, "X-Length") == b"18"
