"""Sessions that end while a WebSocket is open, by the clock of the test."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.test import override_settings
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels._threads.database import thread_pool
from trio_channels.auth import AuthMiddlewareStack, login, logout
from trio_channels.auth.recheck import Recheck
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import URLRouter
from trio_channels.sync import sync_to_async
from trio_channels.testing import WebsocketCommunicator

from .test_auth import cookie_of, session_of

pytestmark = pytest.mark.usefixtures("blocking_queries")

INTERVAL = 300.0


@pytest.fixture(autouse=True)
def recheck() -> Any:
    with override_settings(TRIO_CHANNELS={"SESSION_RECHECK": INTERVAL}):
        yield


@pytest.fixture
def user(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="engine")


@pytest.fixture
def session(user: User) -> SessionStore:
    return session_of(user)


class Room(AsyncWebsocketConsumer):
    """Carries out the client's commands, and keeps the close codes."""

    codes: list[int]

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "fail":
            raise ZeroDivisionError
        if text_data == "logout":
            await logout(self.scope)
        elif text_data == "login":
            await login(self.scope, await sync_to_async(User.objects.get)(username="ada"))
        elif text_data == "save":
            await sync_to_async(self.scope["session"].save)()
        await self.send(text_data=text_data)

    async def disconnect(self, code: int) -> None:
        self.codes.append(code)


@asynccontextmanager
async def room(session: SessionStore | None) -> AsyncIterator[tuple[WebsocketCommunicator, list[int]]]:
    from django.urls import path

    codes: list[int] = []

    class ThisRoom(Room):
        pass

    ThisRoom.codes = codes
    headers = cookie_of(session) if session is not None else []
    application = AuthMiddlewareStack(URLRouter([path("room/", ThisRoom.as_asgi())]))
    async with WebsocketCommunicator(application, "/room/", headers=headers) as ws:
        await ws.connect()
        yield ws, codes


async def next_question(clock: MockClock) -> None:
    """Let the interval pass, and wait for the answer to the question at its end."""
    await wait_all_tasks_blocked()
    calls = thread_pool().statistics().calls
    clock.jump(INTERVAL)
    while thread_pool().statistics().calls == calls or thread_pool().statistics().leased:
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()


def forget_session(user: User, session: SessionStore) -> None:
    Session.objects.all().delete()


def delete_user(user: User, session: SessionStore) -> None:
    user.delete()


def deactivate_user(user: User, session: SessionStore) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def change_password(user: User, session: SessionStore) -> None:
    user.set_password("difference")
    user.save()


def let_somebody_else_in(user: User, session: SessionStore) -> None:
    other = session_of(User.objects.create_user("bob"))
    stored = SessionStore(session.session_key)
    stored.update(other.load())
    stored.save()


@pytest.mark.parametrize("end", [forget_session, delete_user, deactivate_user, change_password, let_somebody_else_in])
async def test_socket_whose_user_may_not_stay_is_closed_with_1008(
    end: Callable[[User, SessionStore], None], user: User, session: SessionStore, mock_clock: MockClock
) -> None:
    async with room(session) as (ws, codes):
        await sync_to_async(end)(user, session)
        await next_question(mock_clock)
        assert (await ws.receive_output())["code"] == 1008
        assert codes == [1008]


async def test_user_who_may_stay_stays(session: SessionStore, mock_clock: MockClock) -> None:
    async with room(session) as (ws, codes):
        await next_question(mock_clock)
        await next_question(mock_clock)
        await ws.send_to(text_data="still here")
        assert await ws.receive_from() == "still here"
        assert codes == []
        await ws.disconnect()


async def test_close_is_one_log_line_that_names_the_user(
    user: User, session: SessionStore, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_channels.auth")
    async with room(session):
        await sync_to_async(forget_session)(user, session)
        await next_question(mock_clock)
    assert [record.getMessage() for record in caplog.records if record.name == "trio_channels.auth"] == [
        f"closing websocket /room/ with 1008: the session of user {user.pk} has ended elsewhere"
    ]


async def test_logout_over_the_socket_itself_does_not_close_it(session: SessionStore, mock_clock: MockClock) -> None:
    async with room(session) as (ws, codes):
        await ws.send_to(text_data="logout")
        await ws.receive_from()
        mock_clock.jump(INTERVAL)
        await wait_all_tasks_blocked()
        await ws.send_to(text_data="still here")
        assert await ws.receive_from() == "still here"
        assert codes == []
        await ws.disconnect()


async def test_login_over_the_socket_is_watched_from_then_on(user: User, mock_clock: MockClock) -> None:
    async with room(None) as (ws, codes):
        for command in ("login", "save"):
            await ws.send_to(text_data=command)
            await ws.receive_from()
            await next_question(mock_clock)
            assert codes == []
        await sync_to_async(user.delete)()
        await next_question(mock_clock)
        assert codes == [1008]


async def test_nobody_is_asked_about_who_is_not_logged_in(transactional_db: None, mock_clock: MockClock) -> None:
    async with room(None) as (ws, _):
        mock_clock.jump(INTERVAL)
        await wait_all_tasks_blocked()
        assert thread_pool().statistics().calls == 0
        await ws.disconnect()


async def test_database_that_is_away_throws_nobody_out(
    session: SessionStore, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with room(session) as (_, codes):
        with monkeypatch.context() as away:
            away.setattr(SessionStore, "load", lambda _session: 1 / 0)
            await next_question(mock_clock)
        assert codes == []
        assert "could not check whether the session of websocket /room/ has ended" in caplog.text
        await sync_to_async(Session.objects.all().delete)()
        await next_question(mock_clock)
        assert codes == [1008]


async def test_what_the_application_raises_stays_bare(session: SessionStore, mock_clock: MockClock) -> None:
    async def fail() -> None:
        async with room(session) as (ws, _):
            await ws.send_to(text_data="fail")
            await ws.wait()

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_application_that_does_not_receive_learns_later(
    user: User, session: SessionStore, mock_clock: MockClock
) -> None:
    may_receive = trio.Event()
    got: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await may_receive.wait()
        got.append(await receive())

    async with WebsocketCommunicator(AuthMiddlewareStack(application), "/", headers=cookie_of(session)) as ws:
        await ws.connect()
        await sync_to_async(forget_session)(user, session)
        await next_question(mock_clock)
        may_receive.set()
        await ws.send_input({"type": "websocket.disconnect", "code": 1000})
        await ws.wait()
    assert got == [{"type": "websocket.disconnect", "code": 1008, "reason": "the session has ended"}]


async def test_application_that_sends_on_reaches_nobody(
    user: User, session: SessionStore, mock_clock: MockClock
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        assert (await receive()) == {"type": "websocket.disconnect", "code": 1008, "reason": "the session has ended"}
        await send({"type": "websocket.send", "text": "is anybody there?"})
        assert (await receive())["code"] == 1008

    async with WebsocketCommunicator(AuthMiddlewareStack(application), "/", headers=cookie_of(session)) as ws:
        await ws.connect()
        await sync_to_async(forget_session)(user, session)
        await next_question(mock_clock)
        assert (await ws.receive_output())["type"] == "websocket.close"
        await ws.send_to(text_data="hello?")
        await ws.send_input({"type": "websocket.disconnect", "code": 1008})
        await ws.wait()
        assert await ws.receive_nothing()


async def test_client_that_leaves_at_the_moment_of_the_close_is_no_error(autojump_clock: MockClock) -> None:
    """A server may raise for a close that comes too late; the application still has its disconnect to handle."""
    sent: list[str] = []
    ended: list[Any] = []

    class Session(dict[str, str]):
        session_key = "key"

    async def receive() -> Any:
        await trio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message["type"])
        raise OSError("the client has gone")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        ended.append(await receive())

    scope = {"type": "websocket", "path": "/", "user": User(), "session": Session(_auth_user_id="1")}
    await Recheck(scope, receive, send, lambda scope: False, 0.01).run(application)
    assert sent == ["websocket.close"]
    assert [event["code"] for event in ended] == [1008]
