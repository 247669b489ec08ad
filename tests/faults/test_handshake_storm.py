"""Handshakes with random headers: no exception, no query if denied, else the anonymous user."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import trio
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.db import connections
from django.test import Client, override_settings

from trio_channels import sessions
from trio_channels._threads.database import thread_pool
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.security.websocket import AllowedHostsOriginValidator
from trio_channels.sync import sync_to_async
from trio_channels.testing import ScriptedConnection

pytestmark = [pytest.mark.faults, pytest.mark.django_db(transaction=True)]

HANDSHAKES = 2_000
SEEDS = range(3)

ALLOWED = "http://testserver"
#: Not random, so that a seed gives the same handshakes each time.
KEY = "0123456789abcdefghijklmnopqrstuv"
ORIGINS = [
    b"null", b"", b"http://evil.test", b"http://testserver.evil.test", b"http://testserver@evil.test", b"http://[::1",
    b"http://testserver:99999", b"http://testserver:", b"https://", b"testserver", b"http://testserver/", b"\xff\xfe",
    b"http://xn--.test", "http://b\u00fccher.test".encode(), b"http://testserver, http://evil.test", b"http://aaa",
    b"file://", b"http://testserver\x00", b"javascript:alert(1)", b"http://0x7f.1", b"http://.testserver",
]  # fmt: skip
COOKIES = [
    b"sessionid=", b"sessionid", b"=;=;=", b"sessionid=\x00", b"sessionid=\xff\xfe\xfd", b"sessionid=../../etc/passwd",
    b"sessionid=' OR 1=1 --", b"sessionid=%00%0a", b'sessionid="unterminated', b"sessionid=" + b"a" * 5_000,
    b"sessionid=a; sessionid=b", b";" * 1_000, b"sessionid=\r\nset-cookie: x=y", b"csrftoken=only",
    b'sessionid="\\400\\777"', "sessionid=\u2603".encode(), b"sessionid=abcdefghijklmnopqrstuvwxyz012345",
]  # fmt: skip


class Seen:
    """The effects of the handshakes: queries in any thread, and the users that the application saw."""

    def __init__(self) -> None:
        self.queries = 0
        self.users: Counter[str] = Counter()

    def count(self, execute: Any, *args: Any) -> Any:
        self.queries += 1
        return execute(*args)


async def application(scope: Any, receive: Any, send: Any) -> None:
    scope["seen"].users[type(scope["user"]).__name__ if scope["user"].is_anonymous else scope["user"].username] += 1
    await receive()
    await send({"type": "websocket.accept"})


stack = AllowedHostsOriginValidator(AuthMiddlewareStack(application))


def rubbish(rng: random.Random, most: int = 60) -> bytes:
    return rng.randbytes(rng.randrange(most))


def tampered(rng: random.Random, key: bytes) -> bytes:
    """A session cookie that is almost the right one."""
    place = rng.randrange(len(key))
    return rng.choice(
        [
            b"sessionid=" + key[:place] + bytes([key[place] ^ rng.randrange(1, 32)]) + key[place + 1 :],
            b"sessionid=" + key[:place],
            b"sessionid=" + key + b"x" + rubbish(rng, 5),
            b"sessionid=" + key.upper(),
        ]
    )


def origins(rng: random.Random) -> list[tuple[bytes, bytes]]:
    """Origin headers that must be denied."""
    kind = rng.randrange(5)
    if kind == 0:
        return []
    if kind == 1:
        return [(b"origin", ALLOWED.encode()), (b"origin", rng.choice(ORIGINS))]
    if kind == 2:
        return [(b"origin", rubbish(rng))]
    return [(rng.choice([b"origin", b"Origin", b"ORIGIN"]), rng.choice(ORIGINS))]


def cookies(rng: random.Random, key: bytes) -> list[tuple[bytes, bytes]]:
    """Cookie headers none of which names a session that exists."""
    values = [
        rng.choice([rng.choice(COOKIES), tampered(rng, key), b"sessionid=" + rubbish(rng), rubbish(rng)])
        for _ in range(rng.randrange(4))
    ]
    return [(rng.choice([b"cookie", b"Cookie"]), value) for value in values]


@pytest.fixture
def session_key() -> bytes:
    """The key of a session of a user who is logged in."""
    user = User.objects.create_user("genuine", password="secret")
    browser = Client()
    browser.force_login(user)
    Session.objects.update(session_key=KEY)
    return KEY.encode()


async def handshake(headers: list[tuple[bytes, bytes]], seen: Seen) -> list[dict[str, Any]]:
    scope = {"type": "websocket", "path": "/", "headers": headers, "seen": seen}
    with trio.fail_after(30):
        return await ScriptedConnection(scope, [{"type": "websocket.connect"}]).run(stack)


@pytest.fixture
async def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Counts the queries of all worker threads; each has a connection of its own."""
    counted = Seen()
    load = sessions.load_session

    def load_counted(session: SessionBase) -> None:
        with connections["default"].execute_wrapper(counted.count):
            load(session)

    monkeypatch.setattr("trio_channels.sessions.load_session", load_counted)
    monkeypatch.setattr("trio_channels.auth.load_session", load_counted)
    return counted


@pytest.mark.parametrize("seed", SEEDS)
async def test_bad_origins_are_denied_without_a_query(seed: int, session_key: bytes, seen: Seen) -> None:
    rng = random.Random(seed)
    for number in range(HANDSHAKES):
        headers = origins(rng) + cookies(rng, session_key) + [(b"cookie", b"sessionid=" + session_key)]
        rng.shuffle(headers)
        assert await handshake(headers, seen) == [{"type": "websocket.close"}], f"seed {seed}, {number}: {headers!r}"
    assert seen.queries == 0
    assert thread_pool().statistics().calls == 0
    assert not seen.users


@pytest.mark.parametrize("seed", SEEDS)
async def test_tampered_cookies_are_anonymous_and_never_an_error(seed: int, session_key: bytes, seen: Seen) -> None:
    rng = random.Random(seed)
    for number in range(HANDSHAKES):
        headers = [(b"origin", ALLOWED.encode()), *cookies(rng, session_key)]
        rng.shuffle(headers)
        answer = await handshake(headers, seen)
        assert answer[0]["type"] == "websocket.accept", f"seed {seed}, {number}: {headers!r}"
        assert seen.users == {"AnonymousUser": number + 1}, f"seed {seed}, {number}: {headers!r}"
    assert seen.queries > 0  # a plausible key takes a query


async def test_genuine_cookie_is_the_user(session_key: bytes, seen: Seen) -> None:
    answer = await handshake([(b"origin", ALLOWED.encode()), (b"cookie", b"sessionid=" + session_key)], seen)
    assert answer == [{"type": "websocket.accept"}]
    assert seen.users == {"genuine": 1}


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff" * 4, b"YTpi:c", None])
async def test_session_whose_content_was_tampered_with_is_anonymous(
    content: bytes | None, session_key: bytes, seen: Seen
) -> None:
    def tamper() -> None:
        row = Session.objects.get(session_key=session_key.decode())
        row.session_data = row.session_data[:-3] if content is None else content.decode("latin-1")
        row.save()

    await sync_to_async(tamper)()
    headers = [(b"origin", ALLOWED.encode()), (b"cookie", b"sessionid=" + session_key)]
    assert (await handshake(headers, seen))[0]["type"] == "websocket.accept"
    assert seen.users == {AnonymousUser.__name__: 1}


async def test_session_of_a_foreign_key_is_anonymous(session_key: bytes, seen: Seen) -> None:
    headers = [(b"origin", ALLOWED.encode()), (b"cookie", b"sessionid=" + session_key)]
    with override_settings(SECRET_KEY="another one"):
        assert (await handshake(headers, seen))[0]["type"] == "websocket.accept"
    assert seen.users == {AnonymousUser.__name__: 1}
