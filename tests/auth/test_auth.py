"""Users in the scope, and logging in and out over a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.contrib import auth as django_auth
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.http import HttpRequest
from django.test import override_settings

from trio_channels._threads.database import thread_pool
from trio_channels.auth import AuthMiddleware, AuthMiddlewareStack, get_user, login, logout
from trio_channels.exceptions import ConfigurationError
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.sessions import CookieMiddleware, SessionMiddleware, SessionMiddlewareStack
from trio_channels.sync import sync_to_async
from trio_channels.testing import ScriptedConnection, WebsocketCommunicator

pytestmark = pytest.mark.usefixtures("blocking_queries")


@pytest.fixture
def user(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="engine")


def session_of(user: User) -> SessionStore:
    """A session as Django's own login makes it."""
    request = HttpRequest()
    request.session = SessionStore()
    django_auth.login(request, user)
    request.session.save()
    return request.session  # type: ignore[return-value]


@pytest.fixture
def session(user: User) -> SessionStore:
    return session_of(user)


def cookie_of(session: Any) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", f"sessionid={session.session_key}".encode())]


def set_cookie(ws: WebsocketCommunicator) -> str:
    cookies = SimpleCookie()
    for name, value in ws.response_headers or ():
        if name == b"set-cookie":
            cookies.load(value.decode())
    return cookies["sessionid"].value


async def user_for(headers: Any = ()) -> Any:
    """The user that a consumer would see."""
    found: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["user"])

    scope = {"type": "websocket", "path": "/", "headers": list(headers)}
    await ScriptedConnection(scope, []).run(AuthMiddlewareStack(application))
    return found[0]


# -- who is it --------------------------------------------------------------------------------------------------------


async def test_session_and_its_user_are_loaded_in_exactly_one_hop(user: User, session: SessionStore) -> None:
    assert await user_for(cookie_of(session)) == user
    assert thread_pool().statistics().calls == 1


async def test_session_is_loaded_when_the_application_looks_at_it(session: SessionStore) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["session"]["_auth_user_id"] == str(scope["user"].pk)
        assert thread_pool().statistics().calls == 1

    scope = {"type": "websocket", "path": "/", "headers": cookie_of(session)}
    await ScriptedConnection(scope, []).run(AuthMiddlewareStack(application))


@pytest.mark.parametrize("headers", [[], [(b"cookie", b"other=1")], [(b"cookie", b"sessionid=\0bad\0bad\0bad")]])
async def test_without_a_session_nobody_is_asked_who_it_is(headers: Any) -> None:
    """Neither a thread nor the database, which pytest-django would not allow here."""
    assert await user_for(headers) == AnonymousUser()
    assert thread_pool().statistics().calls == 0


async def test_unknown_session_is_anonymous(transactional_db: None) -> None:
    assert (await user_for([(b"cookie", b"sessionid=" + b"a" * 32)])).is_anonymous


async def test_session_without_a_user_is_anonymous(transactional_db: None) -> None:
    session = SessionStore()
    session["colour"] = "blue"
    session.save()
    assert (await user_for(cookie_of(session))).is_anonymous


async def test_user_whose_password_was_changed_is_anonymous(user: User, session: SessionStore) -> None:
    user.set_password("new")
    user.save()
    assert (await user_for(cookie_of(session))).is_anonymous
    assert not Session.objects.exists(), "Django flushes such a session"


async def test_user_who_was_deactivated_is_anonymous(user: User, session: SessionStore) -> None:
    user.is_active = False
    user.save()
    assert (await user_for(cookie_of(session))).is_anonymous


async def test_user_who_was_deleted_is_anonymous(user: User, session: SessionStore) -> None:
    user.delete()
    assert (await user_for(cookie_of(session))).is_anonymous


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_auth_user_id", "no number"),
        ("_auth_user_id", "9" * 40),
        ("_auth_user_id", None),
        ("_auth_user_id", [1]),
        ("_auth_user_hash", "0" * 64),
        ("_auth_user_hash", None),
        ("_auth_user_hash", "ä"),
        ("_auth_user_backend", "no.such.Backend"),
        ("_auth_user_backend", None),
    ],
)
async def test_rubbish_in_a_session_is_anonymous_and_never_an_error(
    session: SessionStore, key: str, value: Any
) -> None:
    session[key] = value
    session.save()
    assert (await user_for(cookie_of(session))).is_anonymous


async def test_session_of_a_former_secret_key_is_renewed(user: User, session: SessionStore) -> None:
    from django.conf import settings

    with override_settings(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        async with WebsocketCommunicator(AuthMiddlewareStack(WhoAmI.as_asgi()), "/", cookie_of(session)) as ws:
            await ws.connect()
            assert await ws.receive_from() == "ada"
            assert set_cookie(ws) != session.session_key
            await ws.disconnect()


async def test_session_signed_with_a_forgotten_secret_key_is_anonymous(session: SessionStore) -> None:
    with override_settings(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=[]):
        assert (await user_for(cookie_of(session))).is_anonymous


async def test_user_that_is_in_the_scope_already_stays() -> None:
    stranger = User(username="stranger")
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["user"])

    await AuthMiddleware(application)({"type": "websocket", "user": stranger}, None, None)  # type: ignore[arg-type]
    assert seen == [stranger]


async def test_given_user_does_not_load_the_session_on_the_loop(session: SessionStore) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert hasattr(scope["session"], "_session_cache")

    scope = {"type": "websocket", "headers": cookie_of(session), "user": AnonymousUser()}
    await ScriptedConnection(scope, []).run(AuthMiddlewareStack(application))


async def test_scope_outside_is_not_changed(session: SessionStore) -> None:
    scope = {"type": "websocket", "path": "/", "headers": cookie_of(session)}
    before = dict(scope)

    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    await ScriptedConnection(scope, []).run(AuthMiddlewareStack(application))
    assert scope == before


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda scope: get_user(scope), id="get_user"),
        pytest.param(lambda scope: login(scope, User()), id="login"),
        pytest.param(lambda scope: logout(scope), id="logout"),
        pytest.param(lambda scope: AuthMiddleware(None)(scope, None, None), id="AuthMiddleware"),  # type: ignore[arg-type]
    ],
)
async def test_without_a_session_in_the_scope_the_error_says_what_to_do(call: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="wrap the application in AuthMiddlewareStack"):
        await call({"type": "websocket"})


async def test_middleware_between_session_and_user_costs_one_hop(user: User, session: SessionStore) -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["user"])

    async def between(scope: Any, receive: Any, send: Any) -> None:
        assert scope["session"]["_auth_user_id"] == str(user.pk)
        await AuthMiddleware(application)(scope, receive, send)

    scope = {"type": "websocket", "headers": cookie_of(session)}
    await ScriptedConnection(scope, []).run(CookieMiddleware(SessionMiddleware(between)))
    assert seen == [user]
    assert thread_pool().statistics().calls == 2


# -- login and logout -------------------------------------------------------------------------------------------------


class WhoAmI(AsyncWebsocketConsumer):
    """Says who its user is."""

    async def connect(self) -> None:
        await self.accept()
        await self.tell()

    async def tell(self) -> None:
        await self.send(text_data=self.scope["user"].username or "nobody")


class LogsIn(WhoAmI):
    """Logs in and out by message, or on connect."""

    on_connect = ""

    async def connect(self) -> None:
        if self.on_connect:
            await self.command(self.on_connect)
        await super().connect()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.command(text_data or "")
        await self.tell()

    async def command(self, text: str) -> None:
        if text == "logout":
            await logout(self.scope)
        else:
            await login(self.scope, await sync_to_async(User.objects.get)(username=text))


class LogsInOnConnect(LogsIn):
    on_connect = "ada"


class LogsOutOnConnect(LogsIn):
    on_connect = "logout"


@contextmanager
def received(signal: Any) -> Iterator[list[dict[str, Any]]]:
    calls: list[dict[str, Any]] = []

    def receiver(**kwargs: Any) -> None:
        calls.append(kwargs)

    signal.connect(receiver)
    try:
        yield calls
    finally:
        signal.disconnect(receiver)


async def test_login_in_connect_gives_a_session_django_knows(user: User) -> None:
    async with WebsocketCommunicator(AuthMiddlewareStack(LogsInOnConnect.as_asgi()), "/") as ws:
        await ws.connect()
        assert await ws.receive_from() == "ada"
        request = HttpRequest()
        request.session = SessionStore(set_cookie(ws))
        assert django_auth.get_user(request) == user
        await ws.disconnect()
    assert Session.objects.count() == 1


async def test_login_cycles_an_anonymous_sessions_key(user: User) -> None:
    before = SessionStore()
    before["colour"] = "blue"
    before.save()
    async with WebsocketCommunicator(AuthMiddlewareStack(LogsInOnConnect.as_asgi()), "/", cookie_of(before)) as ws:
        await ws.connect()
        assert set_cookie(ws) != before.session_key
        assert SessionStore(set_cookie(ws))["colour"] == "blue"
        await ws.disconnect()
    assert not Session.objects.filter(pk=before.session_key).exists()


async def test_login_as_somebody_else_drops_the_data_of_the_former_user(user: User, session: SessionStore) -> None:
    User.objects.create_user("eve")
    session["secret"] = 1
    session.save()

    class Eve(LogsIn):
        on_connect = "eve"

    async with WebsocketCommunicator(AuthMiddlewareStack(Eve.as_asgi()), "/", cookie_of(session)) as ws:
        await ws.connect()
        assert await ws.receive_from() == "eve"
        assert "secret" not in SessionStore(set_cookie(ws))
        await ws.disconnect()


async def test_login_sends_the_signal_and_updates_last_login(user: User) -> None:
    with received(user_logged_in) as calls:
        async with WebsocketCommunicator(AuthMiddlewareStack(LogsInOnConnect.as_asgi()), "/") as ws:
            ws.scope["client"] = ("192.0.2.1", 4000)
            await ws.connect()
            await ws.disconnect()
    (call,) = calls
    assert (call["sender"], call["user"]) == (User, user)
    assert call["request"].META["REMOTE_ADDR"] == "192.0.2.1"
    assert call["request"].session["_auth_user_id"] == str(user.pk)
    user.refresh_from_db()
    assert user.last_login is not None


async def test_login_later_is_saved_at_the_end(user: User) -> None:
    async with WebsocketCommunicator(AuthMiddlewareStack(LogsIn.as_asgi()), "/") as ws:
        await ws.connect()
        assert await ws.receive_from() == "nobody"
        await ws.send_to(text_data="ada")
        assert await ws.receive_from() == "ada"
        await ws.disconnect()
    assert Session.objects.get().get_decoded()["_auth_user_id"] == str(user.pk)


async def test_login_with_several_backends_needs_to_be_told_which(user: User) -> None:
    backends = ["django.contrib.auth.backends.ModelBackend", "django.contrib.auth.backends.RemoteUserBackend"]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match="multiple authentication backends"):
            await login(scope, user)
        assert scope["user"].is_anonymous
        await login(scope, user, backends[1])
        assert scope["session"]["_auth_user_backend"] == backends[1]
        assert scope["user"] == user

    with override_settings(AUTHENTICATION_BACKENDS=backends):
        scope = {"type": "websocket", "headers": []}
        await ScriptedConnection(scope, []).run(AuthMiddlewareStack(application))


async def test_logout_in_connect_deletes_the_session_and_its_cookie(user: User, session: SessionStore) -> None:
    with received(user_logged_out) as calls:
        async with WebsocketCommunicator(
            AuthMiddlewareStack(LogsOutOnConnect.as_asgi()), "/", cookie_of(session)
        ) as ws:
            await ws.connect()
            assert await ws.receive_from() == "nobody"
            assert set_cookie(ws) == ""
            await ws.disconnect()
    assert [call["user"] for call in calls] == [user]
    assert not Session.objects.exists()


async def test_logout_later_deletes_the_session(session: SessionStore) -> None:
    async with WebsocketCommunicator(AuthMiddlewareStack(LogsIn.as_asgi()), "/", cookie_of(session)) as ws:
        await ws.connect()
        assert await ws.receive_from() == "ada"
        await ws.send_to(text_data="logout")
        assert await ws.receive_from() == "nobody"
        assert not Session.objects.exists()
        await ws.disconnect()
    assert not Session.objects.exists()


async def test_logout_of_nobody_does_nothing(transactional_db: None) -> None:
    with received(user_login_failed) as failures:
        async with WebsocketCommunicator(AuthMiddlewareStack(LogsOutOnConnect.as_asgi()), "/") as ws:
            await ws.connect()
            assert await ws.receive_from() == "nobody"
            await ws.disconnect()
    assert not failures
    assert not Session.objects.exists()


async def test_logout_brings_no_user_into_the_scope(session: SessionStore) -> None:
    scope: dict[str, Any] = {"session": session}
    await logout(scope)
    assert "user" not in scope
    scope["user"] = None
    await logout(scope)
    assert scope["user"].is_anonymous


async def test_get_user_sees_a_login_made_elsewhere_in_the_application(user: User) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert (await get_user(scope)).is_anonymous
        await login(scope, user)
        assert await get_user(scope) == user

    scope = {"type": "websocket", "headers": []}
    await ScriptedConnection(scope, []).run(SessionMiddlewareStack(application))
