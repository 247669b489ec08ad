"""Cookies and sessions in the scope: read once, saved when changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import pytest
import trio
import trio.testing
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.test import override_settings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trio_channels._threads.database import thread_pool
from trio_channels.exceptions import ConfigurationError
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.sessions import CookieMiddleware, SessionMiddleware, SessionMiddlewareStack
from trio_channels.sync import sync_to_async
from trio_channels.testing import HttpCommunicator, ScriptedConnection, WebsocketCommunicator

pytestmark = pytest.mark.usefixtures("blocking_queries")


@pytest.fixture
def stored(transactional_db: None) -> SessionStore:
    """A session in the database."""
    session = SessionStore()
    session["colour"] = "blue"
    session.create()
    return session


def cookie_of(session: Any, name: str = "sessionid") -> list[tuple[bytes, bytes]]:
    return [(b"cookie", f"{name}={session.session_key}".encode())]


def set_cookies(headers: Any) -> SimpleCookie:
    cookies = SimpleCookie()
    for name, value in headers:
        if name == b"set-cookie":
            cookies.load(value.decode())
    return cookies


def data_of(key: str) -> dict[str, Any]:
    return SessionStore(key).load()


async def run_with(application: Any, headers: Any = (), kind: str = "websocket") -> None:
    scope = {"type": kind, "path": "/", "headers": list(headers)}
    await ScriptedConnection(scope, []).run(application)


class Scopes:
    """An application that keeps its scopes."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope)


# -- cookies ----------------------------------------------------------------------------------------------------------


async def cookies_from(*headers: bytes) -> dict[str, str]:
    inner = Scopes()
    await run_with(CookieMiddleware(inner), [(b"cookie", header) for header in headers])
    return inner.seen[0]["cookies"]


async def test_cookies_are_a_dict_in_the_scope() -> None:
    assert await cookies_from(b"a=1; b=two; c=%22x%22") == {"a": "1", "b": "two", "c": "%22x%22"}


async def test_there_are_none_without_a_header() -> None:
    assert await cookies_from() == {}


async def test_cookie_headers_that_http_2_has_split_are_all_read() -> None:
    assert await cookies_from(b"a=1", b"b=2; c=3", b"d=4") == {"a": "1", "b": "2", "c": "3", "d": "4"}


async def test_header_name_in_capitals_is_read_too() -> None:
    inner = Scopes()
    await run_with(CookieMiddleware(inner), [(b"Cookie", b"a=1")])
    assert inner.seen[0]["cookies"] == {"a": "1"}


async def test_cookies_that_are_there_already_stay() -> None:
    inner = Scopes()
    scope = {"type": "http", "headers": [(b"cookie", b"a=1")], "cookies": {"b": "2"}}
    await ScriptedConnection(scope, []).run(CookieMiddleware(inner))
    assert inner.seen[0]["cookies"] == {"b": "2"}


@given(st.lists(st.binary(max_size=50), max_size=3))
@example([b"=;=;\0"])
async def test_any_bytes_are_cookies_and_never_an_error(headers: list[bytes]) -> None:
    assert isinstance(await cookies_from(*headers), dict)


def test_cookie_can_be_set_and_deleted_on_a_message() -> None:
    message: dict[str, Any] = {"type": "websocket.accept", "headers": [(b"x-a", b"1")]}
    CookieMiddleware.set_cookie(message, "a", "1", httponly=True, path="/ws/", samesite="Strict")
    CookieMiddleware.delete_cookie(message, "b", path="/b/")
    assert message["headers"][0] == (b"x-a", b"1")
    cookies = set_cookies(message["headers"])
    assert cookies["a"].value == "1"
    assert cookies["a"]["httponly"]
    assert (cookies["a"]["path"], cookies["a"]["samesite"]) == ("/ws/", "Strict")
    assert (cookies["b"].value, cookies["b"]["path"], cookies["b"]["max-age"]) == ("", "/b/", "0")


# -- reading a session ------------------------------------------------------------------------------------------------


async def test_session_is_in_the_scope_loaded_in_one_hop(stored: SessionStore) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert thread_pool().statistics().calls == 1
        assert scope["session"]["colour"] == "blue"
        assert scope["session"].session_key == stored.session_key

    await run_with(SessionMiddlewareStack(application), cookie_of(stored))


async def test_connect_without_a_session_cookie_needs_no_thread() -> None:
    inner = Scopes()
    await run_with(SessionMiddlewareStack(inner), [(b"cookie", b"other=1")])
    assert inner.seen[0]["session"].is_empty()
    assert inner.seen[0]["session"].get("colour") is None
    assert thread_pool().statistics().calls == 0


async def test_name_of_the_cookie_is_a_setting(stored: SessionStore) -> None:
    inner = Scopes()
    with override_settings(SESSION_COOKIE_NAME="sid"):
        await run_with(SessionMiddlewareStack(inner), cookie_of(stored, "sid"))
    assert inner.seen[0]["session"]["colour"] == "blue"


async def test_unknown_session_is_an_empty_one_with_a_key_of_its_own(transactional_db: None) -> None:
    inner = Scopes()
    await run_with(SessionMiddlewareStack(inner), [(b"cookie", b"sessionid=abcdefghijklmnopqrstuvwxyz012345")])
    assert inner.seen[0]["session"].is_empty()
    assert inner.seen[0]["session"].session_key is None


@pytest.mark.parametrize(
    "value", [b"", b"\0", b"abcdefgh\0abcdefgh", b"\xff" * 32, b"a\tbcdefghij", b"short"], ids=repr
)
async def test_key_that_no_backend_has_made_is_not_looked_up(value: bytes) -> None:
    inner = Scopes()
    await run_with(SessionMiddlewareStack(inner), [(b"cookie", b"sessionid=" + value)])
    assert inner.seen[0]["session"].session_key is None
    assert thread_pool().statistics().calls == 0


async def test_huge_key_is_anonymous(transactional_db: None) -> None:
    inner = Scopes()
    await run_with(SessionMiddlewareStack(inner), [(b"cookie", b"sessionid=" + b"a" * 100_000)])
    assert inner.seen[0]["session"].is_empty()


async def test_tampered_data_in_the_database_is_an_empty_session(stored: SessionStore) -> None:
    Session.objects.update(session_data="rubbish:" + Session.objects.get().session_data)
    inner = Scopes()
    await run_with(SessionMiddlewareStack(inner), cookie_of(stored))
    assert dict(inner.seen[0]["session"].items()) == {}


# The database is only read, so that one of all examples is as good as one for each.
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80))
@example(b"abcdefgh' OR 1=1 --")
@example(b"../../../../etc/passwd")
@example("😀".encode() * 8)
@example(b"\x7f" * 8)
async def test_any_session_cookie_is_anonymous_and_no_error(transactional_db: None, value: bytes) -> None:
    inner = Scopes()
    await run_with(SessionMiddlewareStack(inner), [(b"cookie", b"sessionid=" + value)])
    assert inner.seen[0]["session"].is_empty()


@pytest.mark.parametrize("engine", ["signed_cookies", "cache", "file"])
async def test_other_session_engines_take_rubbish_too(engine: str) -> None:
    inner = Scopes()
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
        await run_with(SessionMiddlewareStack(inner), [(b"cookie", b"sessionid=../rubbish:" + b"x" * 300)])
        assert dict(inner.seen[0]["session"].items()) == {}


async def test_session_without_cookies_in_the_scope_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="put it inside a CookieMiddleware"):
        await run_with(SessionMiddleware(Scopes()))


async def test_session_that_is_in_the_scope_already_stays() -> None:
    inner = Scopes()
    scope = {"type": "websocket", "headers": [], "session": {"mine": 1}}
    await ScriptedConnection(scope, []).run(SessionMiddlewareStack(inner))
    assert inner.seen[0]["session"] == {"mine": 1}


# -- saving a session -------------------------------------------------------------------------------------------------


class Colour(AsyncWebsocketConsumer):
    """Sets the session's colour, on connect or by message."""

    on_connect: str | None = None

    async def connect(self) -> None:
        if self.on_connect:
            self.scope["session"]["colour"] = self.on_connect
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "crash":
            raise LookupError("asked to")
        self.scope["session"]["colour"] = text_data
        await self.send(text_data="done")


class ColourOnConnect(Colour):
    on_connect = "red"


async def test_session_changed_in_connect_is_saved_before_accept(
    transactional_db: None,
) -> None:
    async with WebsocketCommunicator(SessionMiddlewareStack(ColourOnConnect.as_asgi()), "/") as ws:
        assert await ws.connect() == (True, None)
        morsel = set_cookies(ws.response_headers)["sessionid"]
        assert data_of(morsel.value) == {"colour": "red"}
        assert morsel["httponly"]
        assert (morsel["path"], morsel["samesite"], morsel["max-age"]) == ("/", "Lax", str(14 * 24 * 3600))
        await ws.disconnect()
    assert Session.objects.count() == 1


async def test_cookie_joins_the_headers_of_the_acceptance(transactional_db: None) -> None:
    class WithHeader(Colour):
        async def connect(self) -> None:
            self.scope["session"]["colour"] = "red"
            await self.accept(headers=[(b"x-mine", b"1")])

    async with WebsocketCommunicator(SessionMiddlewareStack(WithHeader.as_asgi()), "/") as ws:
        await ws.connect()
        assert [name for name, _ in ws.response_headers or ()] == [b"x-mine", b"set-cookie"]
        await ws.disconnect()


async def test_synchronous_consumer_saves_its_session_too(transactional_db: None) -> None:
    class Sync(WebsocketConsumer):
        def connect(self) -> None:
            self.scope["session"]["colour"] = "green"
            self.accept()

    async with WebsocketCommunicator(SessionMiddlewareStack(Sync.as_asgi()), "/") as ws:
        await ws.connect()
        assert data_of(set_cookies(ws.response_headers)["sessionid"].value) == {"colour": "green"}
        await ws.disconnect()


async def test_settings_of_the_cookie_are_honoured(transactional_db: None) -> None:
    with override_settings(
        SESSION_COOKIE_NAME="sid",
        SESSION_COOKIE_PATH="/app/",
        SESSION_COOKIE_DOMAIN="example.com",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
    ):
        async with WebsocketCommunicator(SessionMiddlewareStack(ColourOnConnect.as_asgi()), "/") as ws:
            await ws.connect()
            morsel = set_cookies(ws.response_headers)["sid"]
            await ws.disconnect()
    assert (morsel["path"], morsel["domain"], morsel["samesite"]) == ("/app/", "example.com", "Strict")
    assert morsel["secure"]
    assert not morsel["httponly"]
    assert morsel["max-age"] == ""


async def test_session_only_read_is_not_saved(stored: SessionStore) -> None:
    class Reads(Colour):
        async def connect(self) -> None:
            await self.accept()
            await self.send(text_data=self.scope["session"]["colour"])

    async with WebsocketCommunicator(SessionMiddlewareStack(Reads.as_asgi()), "/", cookie_of(stored)) as ws:
        await ws.connect()
        assert await ws.receive_from() == "blue"
        assert ws.response_headers == []
        await ws.disconnect()
        assert thread_pool().statistics().calls == 1


async def test_every_acceptance_renews_the_cookie_if_the_setting_says_so(stored: SessionStore) -> None:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        async with WebsocketCommunicator(SessionMiddlewareStack(Colour.as_asgi()), "/", cookie_of(stored)) as ws:
            await ws.connect()
            assert set_cookies(ws.response_headers)["sessionid"].value == stored.session_key
            await ws.disconnect()


async def test_session_changed_later_is_saved_when_the_connection_ends(stored: SessionStore) -> None:
    async with WebsocketCommunicator(SessionMiddlewareStack(Colour.as_asgi()), "/", cookie_of(stored)) as ws:
        await ws.connect()
        await ws.send_to(text_data="green")
        await ws.receive_from()
        assert data_of(stored.session_key)["colour"] == "blue"
        await ws.disconnect()
    assert data_of(stored.session_key)["colour"] == "green"


async def test_session_changed_before_a_crash_is_saved(stored: SessionStore) -> None:
    async with WebsocketCommunicator(SessionMiddlewareStack(Colour.as_asgi()), "/", cookie_of(stored)) as ws:
        await ws.connect()
        await ws.send_to(text_data="green")
        await ws.receive_from()
        await ws.send_to(text_data="crash")
        with pytest.raises(LookupError):
            await ws.wait()
    assert data_of(stored.session_key)["colour"] == "green"


async def test_session_is_saved_when_the_server_cancels_the_connection(stored: SessionStore) -> None:
    async with WebsocketCommunicator(SessionMiddlewareStack(Colour.as_asgi()), "/", cookie_of(stored)) as ws:
        await ws.connect()
        await ws.send_to(text_data="green")
        await ws.receive_from()
    assert data_of(stored.session_key)["colour"] == "green"


async def test_cancelled_acceptance_does_not_lose_the_change(stored: SessionStore) -> None:
    """The server ends the connection while the save before the acceptance waits for a worker thread."""
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1}), trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            let_go = trio.Event()
            server = trio.CancelScope()

            async def connection() -> None:
                with server:
                    await run_with(SessionMiddlewareStack(changes_and_accepts), cookie_of(stored))

            async def changes_and_accepts(scope: Any, receive: Any, send: Any) -> None:
                held = trio.Event()
                nursery.start_soon(hold, held)
                await held.wait()
                scope["session"]["colour"] = "green"
                await send({"type": "websocket.accept"})

            async def hold(held: trio.Event) -> None:
                async with thread_pool().lease():
                    held.set()
                    await let_go.wait()

            nursery.start_soon(connection)
            await _until(lambda: thread_pool().statistics().waiting == 1)
            server.cancel()
            await trio.testing.wait_all_tasks_blocked()
            let_go.set()
    assert data_of(stored.session_key)["colour"] == "green"


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_session_deleted_elsewhere_is_one_warning(stored: SessionStore, caplog: pytest.LogCaptureFixture) -> None:
    async with WebsocketCommunicator(SessionMiddlewareStack(Colour.as_asgi()), "/mine/", cookie_of(stored)) as ws:
        await ws.connect()
        await ws.send_to(text_data="green")
        await ws.receive_from()
        Session.objects.all().delete()
        await ws.disconnect()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_channels.sessions", logging.WARNING)
    assert "the session of websocket /mine/ was deleted while it was connected" in record.getMessage()
    assert not Session.objects.exists()


async def test_session_flushed_in_connect_is_deleted_with_its_cookie(stored: SessionStore) -> None:
    class Flushes(Colour):
        async def connect(self) -> None:
            await sync_to_async(self.scope["session"].flush)()
            await self.accept()

    async with WebsocketCommunicator(SessionMiddlewareStack(Flushes.as_asgi()), "/", cookie_of(stored)) as ws:
        await ws.connect()
        morsel = set_cookies(ws.response_headers)["sessionid"]
        assert (morsel.value, morsel["max-age"]) == ("", "0")
        await ws.disconnect()
    assert not Session.objects.exists()


async def test_session_flushed_later_leaves_no_empty_one_behind(stored: SessionStore) -> None:
    class Flushes(Colour):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await sync_to_async(self.scope["session"].flush)()
            await self.close()

    async with WebsocketCommunicator(SessionMiddlewareStack(Flushes.as_asgi()), "/", cookie_of(stored)) as ws:
        await ws.connect()
        await ws.send_to(text_data="flush")
        assert (await ws.receive_output())["type"] == "websocket.close"
        await ws.wait()
    assert not Session.objects.exists()


async def test_denied_websocket_keeps_its_changes_but_gets_no_cookie(stored: SessionStore) -> None:
    class Denies(Colour):
        async def connect(self) -> None:
            self.scope["session"]["colour"] = "denied"
            await self.close()

    async with WebsocketCommunicator(SessionMiddlewareStack(Denies.as_asgi()), "/", cookie_of(stored)) as ws:
        assert await ws.connect() == (False, 1000)
        await ws.wait()
    assert data_of(stored.session_key)["colour"] == "denied"


def _answers(status: int) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["colour"] = "red"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    return application


async def test_response_carries_the_cookie_of_a_changed_session(transactional_db: None) -> None:
    async with HttpCommunicator(SessionMiddlewareStack(_answers(200)), "GET", "/") as client:
        response = await client.get_response()
    assert data_of(set_cookies(response["headers"])["sessionid"].value) == {"colour": "red"}


async def test_error_response_saves_no_session_and_no_cookie(
    transactional_db: None,
) -> None:
    async with HttpCommunicator(SessionMiddlewareStack(_answers(500)), "GET", "/") as client:
        response = await client.get_response()
    assert response["headers"] == []
    assert not Session.objects.exists()


async def test_save_that_finds_no_thread_in_time_is_given_up_and_logged(
    stored: SessionStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_channels.sessions.SAVE_TIMEOUT", 0.001)
    held, let_go = trio.Event(), trio.Event()

    async def hold() -> None:
        async with thread_pool().lease():
            held.set()
            await let_go.wait()

    async def changes(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["colour"] = "green"
        nursery.start_soon(hold)
        await held.wait()

    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1}), trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await run_with(SessionMiddlewareStack(changes), cookie_of(stored))
            let_go.set()
    assert [record.name for record in caplog.records] == ["trio_channels.sessions"]
    assert "could not be saved within 0.001 seconds" in caplog.messages[0]
