"""The whole life of a session over each of Django's session backends, and with a user model of the project's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.test import override_settings

from trio_channels.auth import AuthMiddlewareStack, login, logout
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.sync import sync_to_async
from trio_channels.testing import WebsocketCommunicator

pytestmark = pytest.mark.usefixtures("blocking_queries")

ENGINES = ("db", "cache", "cached_db", "file", "signed_cookies")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def user(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="engine")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with override_settings(
        SESSION_ENGINE=f"django.contrib.sessions.backends.{request.param}", SESSION_FILE_PATH=str(tmp_path)
    ):
        yield request.param
        caches["default"].clear()


class Visit(AsyncWebsocketConsumer):
    """Calls ``before``, accepts, names the user and the colour of the session; calls ``later`` for each message."""

    before: Callable[[Any], Any] | None = None
    later: Callable[[Any], Any] | None = None

    async def connect(self) -> None:
        if self.before is not None:
            await self.before()
        await self.accept()
        await self.send(text_data=f"{self.scope['user']} {self.scope['session'].get('colour')}")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.later is not None:
            await self.later()


class LogsIn(Visit):
    async def before(self) -> None:  # type: ignore[override]
        await login(self.scope, await sync_to_async(User.objects.get)(username="ada"))
        self.scope["session"]["colour"] = "blue"


class ChangesLater(Visit):
    async def later(self) -> None:  # type: ignore[override]
        self.scope["session"]["colour"] = "green"


class LogsOut(Visit):
    async def before(self) -> None:  # type: ignore[override]
        await logout(self.scope)


async def visit(consumer: type[Visit], cookie: str | None = None) -> tuple[str, str | None]:
    """The greeting for a visitor with that session cookie, and the cookie afterwards."""
    headers = [(b"cookie", f"sessionid={cookie}".encode())] if cookie else []
    async with WebsocketCommunicator(AuthMiddlewareStack(consumer.as_asgi()), "/", headers=headers) as ws:
        await ws.connect()
        told = await ws.receive_from()
        await ws.send_to(text_data="go on")
        await ws.disconnect()
    cookies = SimpleCookie()
    for name, value in ws.response_headers or ():
        if name == b"set-cookie":
            cookies.load(value.decode())
    if "sessionid" not in cookies:
        return told, cookie
    morsel = cookies["sessionid"]
    return told, morsel.value or None  # an empty value deletes the cookie


async def test_login_in_connect_is_known_to_the_next_connection(user: User, engine: str) -> None:
    _, cookie = await visit(LogsIn)
    assert await visit(Visit, cookie) == ("ada blue", cookie)


async def test_change_after_accept_is_saved_or_reported_lost(
    user: User, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, cookie = await visit(LogsIn)
    await visit(ChangesLater, cookie)
    told, _ = await visit(Visit, cookie)
    if engine == "signed_cookies":  # the data is in the cookie, and no cookie can be sent any more
        assert told == "ada blue"
        assert "the client still has the old one" in caplog.text
    else:
        assert told == "ada green"
        assert not caplog.records


async def test_logout_in_connect_deletes_the_cookie(user: User, engine: str) -> None:
    _, cookie = await visit(LogsIn)
    told, after = await visit(LogsOut, cookie)
    assert (told, after) == ("AnonymousUser None", None)
    if engine != "signed_cookies":  # a signed cookie that was kept is still valid, in Django too
        assert (await visit(Visit, cookie))[0] == "AnonymousUser None"


async def test_tampered_cookie_is_anonymous(user: User, engine: str) -> None:
    _, cookie = await visit(LogsIn)
    assert cookie is not None
    middle = len(cookie) // 2
    tampered = cookie[:middle] + ("a" if cookie[middle] != "a" else "b") + cookie[middle + 1 :]
    assert (await visit(Visit, tampered))[0] == "AnonymousUser None"


async def test_huge_cookie_is_anonymous(user: User, engine: str) -> None:
    assert (await visit(Visit, "x" * 100_000))[0] == "AnonymousUser None"


def test_user_model_of_the_project_s_own_with_a_uuid_for_a_key(tmp_path: Path) -> None:
    # A process of its own: the user model cannot be exchanged once Django is set up.
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "__init__.py").touch()
    (tmp_path / "people" / "models.py").write_text(CUSTOM_USER)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ada@example.org UUID\nAnonymousUser\n", "")


CUSTOM_USER = """
import uuid
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Person(AbstractBaseUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    is_active = models.BooleanField(default=True)
    USERNAME_FIELD = "email"
    objects = BaseUserManager()
"""

PROGRAM = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="for one test",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "people"],
    AUTH_USER_MODEL="people.Person",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "people.sqlite3"}},
)
django.setup()
import trio
from django.contrib import auth
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.http import HttpRequest
from people.models import Person
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.testing import ScriptedConnection

call_command("migrate", run_syncdb=True, verbosity=0)
request = HttpRequest()
request.session = SessionStore()
auth.login(request, Person.objects.create(email="ada@example.org"), "django.contrib.auth.backends.ModelBackend")
request.session.save()


async def whoami(scope, receive, send):
    user = scope["user"]
    print(user, *([type(user.pk).__name__] if user.is_authenticated else []))


async def ask(key):
    scope = {"type": "websocket", "path": "/", "headers": [(b"cookie", f"sessionid={key}".encode())]}
    await ScriptedConnection(scope, []).run(AuthMiddlewareStack(whoami))


trio.run(ask, request.session.session_key)
# A session from the time when the project had Django's users, whose keys were numbers.
request.session["_auth_user_id"] = "1"
request.session.save()
trio.run(ask, request.session.session_key)
"""
