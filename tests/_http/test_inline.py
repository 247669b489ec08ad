"""Django's own code around an async view runs on the Trio thread if it never waits, and otherwise on a worker."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangosStore
from django.core import signals
from django.core.handlers.base import BaseHandler
from django.core.signing import TimestampSigner
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.test import override_settings
from django.urls import path, reverse
from django.utils.deprecation import MiddlewareMixin

from trio_channels._http.handler import DjangoHandler
from trio_channels._threads.database import thread_pool
from trio_channels.asgi import get_asgi_application

from .common import PatientCommunicator, header, until

threads: list[threading.Thread] = []
gate = threading.Event()


async def plain(request: HttpRequest) -> HttpResponse:
    await trio.lowlevel.checkpoint()
    return HttpResponse(reverse("plain"))


async def token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(get_token(request))))


async def session_set(request: HttpRequest) -> HttpResponse:
    request.session["colour"] = "red"
    return HttpResponse("set")


async def session_read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.session.get("colour", "none"))


async def session_replaced(request: HttpRequest) -> HttpResponse:
    class Session:
        accessed = modified = False

        def is_empty(self) -> bool:
            threads.append(threading.current_thread())
            return True

    request.session = Session()  # type: ignore[assignment]
    return HttpResponse("replaced")


async def message(request: HttpRequest) -> HttpResponse:
    messages.info(request, "hello")
    return HttpResponse("added")


async def messages_replaced(request: HttpRequest) -> HttpResponse:
    class Storage:
        used = added_new = False

        def update(self, response: HttpResponse) -> list[str]:
            threads.append(threading.current_thread())
            return []

    request._messages = Storage()  # type: ignore[attr-defined]
    return HttpResponse("replaced")


async def missing(request: HttpRequest) -> HttpResponse:
    return HttpResponse("missing", status=404)


async def fails(request: HttpRequest) -> HttpResponse:
    raise LookupError("in the view")


async def own_response(request: HttpRequest) -> HttpResponse:
    class Response(HttpResponse):
        def close(self) -> None:
            threads.append(threading.current_thread())
            super().close()

    return Response("own")


async def closes(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("closes")
    response._resource_closers.append(  # type: ignore[attr-defined]
        lambda: threads.append(threading.current_thread())
    )
    return response


async def odd_status(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("odd")
    response.status_code = "200"  # type: ignore[assignment]
    return response


async def own_rendering(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("not rendered")

    def render() -> HttpResponse:
        threads.append(threading.current_thread())
        return HttpResponse("rendered")

    response.render = render  # type: ignore[attr-defined]
    return response


async def own_closing(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("closes")
    close = response.close

    def closing() -> None:
        threads.append(threading.current_thread())
        close()

    response.close = closing  # type: ignore[method-assign]
    return response


async def connects_a_receiver(request: HttpRequest) -> HttpResponse:
    signals.request_finished.connect(receiver)
    return HttpResponse("connected")


def receiver(**kwargs: Any) -> None:
    threads.append(threading.current_thread())


async def opens_a_connection(request: HttpRequest) -> HttpResponse:
    connection.ensure_connection()
    return HttpResponse("opened")


async def no_response(request: HttpRequest) -> Any:
    return None


async def uses_a_thread(request: HttpRequest) -> HttpResponse:
    threads.append(await sync_to_async(threading.current_thread)())
    return HttpResponse("used")


async def unending(request: HttpRequest) -> HttpResponse:
    threads.append(threading.current_thread())
    await trio.sleep_forever()
    raise AssertionError("unreachable")


def waits(request: HttpRequest) -> HttpResponse:
    threads.append(threading.current_thread())
    gate.wait(30)
    return HttpResponse("waited")


VIEWS = (plain, token, session_set, session_read, session_replaced, message, messages_replaced, missing, fails)
OWN = (own_response, own_rendering, own_closing, closes, no_response, uses_a_thread)
MORE = (odd_status, connects_a_receiver, opens_a_connection, unending, waits)
urlpatterns = [path(f"{view.__name__}/", view, name=view.__name__) for view in (*VIEWS, *OWN, *MORE)]

#: That of ``django-admin startproject``.
NEW_PROJECT = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
SETTINGS = {
    "MIDDLEWARE": NEW_PROJECT,
    "TRIO_CHANNELS": {},
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "MESSAGE_STORAGE": "django.contrib.messages.storage.cookie.CookieStorage",
}


class Projects(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        threads.append(threading.current_thread())


class OwnCsrf(CsrfViewMiddleware):
    pass


class Signer(TimestampSigner):
    pass


class SessionStore(DjangosStore):
    pass


class Hosts(list[str]):
    pass


class Agent:
    def search(self, agent: str) -> None: ...


@pytest.fixture(autouse=True)
def sent_signals(project: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """As everywhere here, but without receivers, as these would be the project's."""
    sent: list[str] = []
    for name in ("request_started", "request_finished"):
        signal = getattr(signals, name)

        def send(*args: Any, name: str = name, send: Callable[..., Any] = signal.send, **kwargs: Any) -> Any:
            sent.append(name)
            return send(*args, **kwargs)

        monkeypatch.setattr(signal, "send", send)
    yield sent
    assert sent.count("request_started") == sent.count("request_finished") > 0


@pytest.fixture(autouse=True)
def _nothing_yet(project: None) -> Iterator[None]:
    threads.clear()
    gate.clear()
    connection.close()  # the test before has left it open on this thread
    with override_settings(**SETTINGS):
        yield
    gate.set()
    signals.request_finished.disconnect(receiver)


async def ask(
    application: DjangoHandler,
    name: str,
    method: str = "GET",
    headers: Any = ((b"host", b"testserver"),),
    body: bytes = b"",
    query: bytes = b"",
) -> dict[str, Any]:
    async with PatientCommunicator(application, method, f"/{name}/", body, headers) as http:
        http.scope["query_string"] = query
        return await http.get_response()


async def warm() -> DjangoHandler:
    """A handler that has served one request: the first one makes the chain, on a thread."""
    application = get_asgi_application()
    assert (await ask(application, "plain"))["status"] == 200
    return application


async def calls(name: str, application: DjangoHandler | None = None, **options: Any) -> tuple[int, dict[str, Any]]:
    """The calls to threads for a request, and its response."""
    application = application or await warm()
    before = thread_pool().statistics().calls
    response = await ask(application, name, **options)
    return thread_pool().statistics().calls - before, response


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_plain_view_needs_no_thread(method: str) -> None:
    needed, response = await calls("plain", method=method)
    assert (needed, response["status"]) == (0, 200)
    assert header(response, "X-Frame-Options") == b"DENY"
    assert header(response, "Content-Length") == b"7"
    assert response["body"] == b"/plain/"  # a server leaves that of a HEAD out


@pytest.mark.parametrize("name", ["token", "session_read"])
async def test_cookies_and_headers_need_no_thread(name: str) -> None:
    needed, response = await calls(name)
    assert (needed, response["status"]) == (0, 200)
    assert b"Cookie" in (header(response, "Vary") or b"")


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("session_set", 200),
        ("session_replaced", 200),
        ("message", 200),
        ("messages_replaced", 200),
        ("missing", 404),
        ("fails", 500),
        ("own_response", 200),
        ("own_rendering", 200),
        ("own_closing", 200),
        ("connects_a_receiver", 200),
        ("closes", 200),
        ("no_response", 500),
    ],
)
async def test_end_that_may_wait_is_on_a_thread(name: str, status: int) -> None:
    needed, response = await calls(name)
    assert (needed, response["status"]) == (1, status)
    assert threading.main_thread() not in threads
    cookies = {name: value for name, value in response["headers"] if name.lower() == b"set-cookie"}
    assert bool(cookies) == (name in ("session_set", "message"))


async def test_session_that_is_always_stored_is_on_a_thread() -> None:
    application = await warm()
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        needed, response = await calls("session_read", application)
    assert (needed, response["body"]) == (1, b"none")


async def test_end_of_a_view_that_used_a_thread_is_on_that_thread() -> None:
    needed, _ = await calls("uses_a_thread")
    assert needed == 2


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({"SECURE_SSL_REDIRECT": True}, [(b"host", b"testserver")], 301),
        ({}, [(b"host", b"testserver"), (b"user-agent", b"bad")], 403),
        ({}, [(b"host", b"elsewhere")], 400),
    ],
    ids=["redirect", "refused agent", "wrong host"],
)
async def test_response_of_a_middleware_is_made_on_a_thread(
    settings: dict[str, Any], headers: Any, status: int, sent_signals: list[str]
) -> None:
    with override_settings(DISALLOWED_USER_AGENTS=[re.compile("bad")]):
        application = await warm()
    with override_settings(**settings, DISALLOWED_USER_AGENTS=[re.compile("bad")]):
        if "SECURE_SSL_REDIRECT" in settings:  # the middleware reads it once
            application = get_asgi_application()
            await ask(application, "plain", headers=[*headers, (b"x", b"1")])
        sent_signals.clear()
        needed, response = await calls("plain", application, headers=headers)
    assert (needed, response["status"]) == (1, status)
    assert sent_signals == ["request_started", "request_finished"]


@pytest.mark.parametrize(
    "settings",
    [
        {"MIDDLEWARE": [*NEW_PROJECT, f"{__name__}.Projects"]},
        {"MIDDLEWARE": [f"{__name__}.OwnCsrf"]},
        {"MIDDLEWARE": ["django.middleware.gzip.GZipMiddleware"]},
        {"CSRF_USE_SESSIONS": True},
        {"TRIO_CHANNELS": {"THREAD_NEUTRAL": ["somebody"]}},
        {"AUTHENTICATION_BACKENDS": ["somebody.Backend"]},
        {"SIGNING_BACKEND": f"{__name__}.Signer"},
        {"ALLOWED_HOSTS": Hosts(["testserver"])},
        {"DISALLOWED_USER_AGENTS": [Agent()]},
    ],
    ids=[
        "own middleware",
        "own subclass",
        "works long",
        "token in the session",
        "neutral package",
        "own backend",
        "own signer",
        "own hosts",
        "own agents",
    ],
)
async def test_project_that_may_wait_is_on_a_thread(settings: dict[str, Any]) -> None:
    with override_settings(**settings):
        needed, response = await calls("plain")
    assert (needed, response["status"]) == (2, 200)
    assert threading.main_thread() not in threads


async def test_request_that_needs_a_token_is_on_a_thread() -> None:
    needed, response = await calls("plain", method="POST")
    assert (needed, response["status"]) == (1, 403)


@pytest.mark.parametrize(("owner", "name"), [(CsrfViewMiddleware, "process_view"), (BaseHandler, "make_view_atomic")])
async def test_replaced_method_is_called_on_a_thread(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before: Any = getattr(owner, name)

    def tools(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread())
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, tools)
    needed, response = await calls("plain")
    assert (needed, response["status"]) == (2, 200)
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("owner", "name"),
    [(XFrameOptionsMiddleware, "get_xframe_options_value"), (HttpRequest, "get_host"), (BaseHandler, "check_response")],
)
async def test_method_that_is_replaced_later_is_called_on_a_thread(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = await warm()
    before: Any = getattr(owner, name)

    def tools(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread())
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, tools)
    assert (await calls("plain", application))[0] == 2
    assert threads
    assert threading.main_thread() not in threads


async def test_sessions_that_the_chain_was_made_with_count() -> None:
    with override_settings(SESSION_ENGINE=__name__):
        application = await warm()
    assert (await calls("plain", application))[0] == 2


async def test_body_in_a_file_is_closed_on_a_thread() -> None:
    application = await warm()

    async def upload(*parts: bytes) -> int:
        before = thread_pool().statistics().calls
        async with PatientCommunicator(application, "GET", "/plain/", headers=[(b"host", b"testserver")]) as http:
            for part in parts:
                await http.send_input({"type": "http.request", "body": part, "more_body": True})
            await http.send_input({"type": "http.request", "body": b"", "more_body": False})
            assert (await http.get_response())["status"] == 200
        return thread_pool().statistics().calls - before

    assert await upload() == 0
    assert await upload(b"x", b"y") == 2


async def test_malformed_query_is_logged_on_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    needed, response = await calls("plain", query=b"\xff")
    assert (needed, response["status"]) == (1, 400)
    [record] = [record for record in caplog.records if record.name == "django.request"]
    assert record.thread != threading.main_thread().ident


async def test_scope_without_a_query_is_served() -> None:
    application = await warm()
    async with PatientCommunicator(application, "GET", "/plain/", headers=[(b"host", b"testserver")]) as http:
        del http.scope["query_string"]  # Django's handler does not need it
        assert (await http.get_response())["status"] == 200


async def test_refused_request_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    application = await warm()
    monkeypatch.setattr(application, "create_request", lambda scope, body: (None, HttpResponse("no", status=413)))
    needed, response = await calls("plain", application)
    assert (needed, response["status"], response["body"]) == (0, 413, b"no")


async def test_response_of_a_hook_is_made_on_a_thread() -> None:
    application = await warm()

    def hook(*args: Any) -> HttpResponse:
        threads.append(threading.current_thread())
        return HttpResponse("from the hook")

    chain: Any = application._async_chain
    chain._inner._hooks.view.append(hook)
    needed, response = await calls("plain", application)
    assert (needed, response["body"]) == (1, b"from the hook")
    assert threads[-1] is not threading.main_thread()


async def test_status_that_is_no_number_raises() -> None:
    application = await warm()
    with pytest.raises(TypeError):
        await ask(application, "odd_status")


async def test_interrupt_at_the_end_finishes_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    application = await warm()

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(application, "_ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        await ask(application, "plain")


async def test_interrupt_before_the_view_finishes_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    application = await warm()

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(application, "resolve_request", interrupted)
    with pytest.raises(KeyboardInterrupt):
        await ask(application, "plain")


async def test_cancelled_request_does_not_begin() -> None:
    application = await warm()
    sent: list[Any] = []
    scope = PatientCommunicator(application, "GET", "/unending/", headers=[(b"host", b"testserver")]).scope

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    with trio.CancelScope() as cancelled:
        cancelled.cancel()
        await application(scope, receive, send)
    assert cancelled.cancelled_caught
    assert sent == threads == []


async def test_receiver_of_the_project_is_called_on_a_thread() -> None:
    application = await warm()
    signals.request_finished.connect(receiver)
    try:
        needed, _ = await calls("plain", application)
    finally:
        signals.request_finished.disconnect(receiver)
    assert needed == 2
    assert threads
    assert threading.main_thread() not in threads


async def test_own_class_of_requests_is_made_on_a_thread() -> None:
    application = await warm()

    class Request(application.request_class):  # type: ignore[misc, name-defined]
        pass

    application.request_class = Request
    assert (await calls("plain", application))[0] == 2


async def test_own_handler_is_called_on_a_thread() -> None:
    class Handler(DjangoHandler):
        pass

    get_asgi_application()
    application = Handler()
    await ask(application, "plain")
    assert (await calls("plain", application))[0] == 2


@pytest.mark.django_db
async def test_connection_that_is_open_here_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    application = await warm()
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    connection.ensure_connection()
    assert (await calls("plain", application))[0] == 2
    assert connection.connection is not None


@pytest.mark.django_db
async def test_connection_that_the_view_opens_here_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    application = await warm()
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    connection.close()
    assert (await calls("opens_a_connection", application))[0] >= 1
    assert connection.connection is not None


async def test_request_that_finds_no_thread_is_finished(sent_signals: list[str]) -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1, "WORKER_QUEUE": 0}):
        application = await warm()
        async with PatientCommunicator(application, "GET", "/waits/", headers=[(b"host", b"testserver")]) as http:
            await http.send_request()
            await until(lambda: threads)
            sent_signals.clear()
            refused = await ask(application, "plain", headers=[(b"host", b"elsewhere")])
            assert refused["status"] == 503
            assert sent_signals == ["request_started", "request_finished"]
            sent_signals.clear()
            assert (await ask(application, "plain"))["status"] == 200  # it needs none
            gate.set()
            assert (await http.get_response())["body"] == b"waited"
        sent_signals.append("request_started")  # that of the request which waited


async def test_client_that_leaves_ends_the_view(sent_signals: list[str]) -> None:
    application = await warm()
    async with PatientCommunicator(application, "GET", "/unending/", headers=[(b"host", b"testserver")]) as http:
        await http.send_request()
        await until(lambda: threads)
        assert threads == [threading.main_thread()]
        await http.disconnect()
    assert sent_signals.count("request_finished") == 2


@pytest.mark.parametrize("name", [view.__name__ for view in (*VIEWS, *OWN)])
async def test_response_is_the_same_as_from_threads(name: str) -> None:
    def shown(response: dict[str, Any]) -> Any:
        unstable = re.compile(rb"(csrftoken|sessionid)=[^;]*|expires=[^;]*", re.IGNORECASE)
        return response["status"], [(key, unstable.sub(b"", value)) for key, value in response["headers"]]

    application = await warm()
    here = await ask(application, name)
    with override_settings(TRIO_CHANNELS={"THREAD_NEUTRAL": ["somebody"]}):
        there = await ask(application, name)
    assert shown(here) == shown(there)
    assert here["body"] == there["body"]


async def test_chain_with_a_response_from_the_middle_is_climbed_again() -> None:
    """A middleware that fails behind the view is called anew, on a thread."""
    application = await warm()
    seen: list[threading.Thread] = []

    class Headers(dict[str, str]):
        def setdefault(self, *args: Any) -> Any:
            seen.append(threading.current_thread())
            raise LookupError("no header")

    async def view(request: HttpRequest) -> HttpResponseBase:
        response = HttpResponse("view")
        response.headers = Headers(response.headers)  # type: ignore[assignment]
        return response

    with override_settings(ROOT_URLCONF=(path("plain/", view),)), contextlib.suppress(LookupError):
        needed, response = await calls("plain", application)
    assert (needed, response["status"]) == (1, 500)
    assert seen[0] is threading.main_thread()
    assert seen[1] is not threading.main_thread()
