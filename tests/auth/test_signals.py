"""The request that the receivers of Django's signals get from login and logout over a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.test import override_settings

from trio_channels._asgi.protocol import Scope
from trio_channels.auth import login, logout
from trio_channels.auth.request import ConnectionRequest

pytestmark = pytest.mark.usefixtures("blocking_queries")

HEADERS = [
    (b"host", b"example.org"),
    (b"user-agent", b"Analytical Engine"),
    (b"x-forwarded-for", b"198.51.100.7"),
    (b"cookie", b"theme=dark"),
    (b"cookie", b"lang=en"),
]


def scope_of(**more: Any) -> Scope:
    return {
        "type": "websocket",
        "path": "/chat/caf\u00e9/",
        "scheme": "wss",
        "query_string": b"next=/a&x=1",
        "headers": HEADERS,
        "client": ("192.0.2.1", 4000),
        "server": ("127.0.0.1", 8000),
        "session": SessionStore(),
    } | more


@pytest.fixture
def user(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="engine")


@contextmanager
def reading(read: Callable[[HttpRequest], Any]) -> Iterator[list[Any]]:
    """Receivers of both signals that note a value of the request, on the thread on which they are called."""
    values: list[Any] = []

    def receiver(request: HttpRequest, **_kwargs: Any) -> None:
        values.append(read(request))

    for signal in (user_logged_in, user_logged_out):
        signal.connect(receiver)
    try:
        yield values
    finally:
        for signal in (user_logged_in, user_logged_out):
            signal.disconnect(receiver)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda request: isinstance(request, HttpRequest), True),
        (lambda request: request.headers.get("User-Agent"), "Analytical Engine"),
        (lambda request: request.META["REMOTE_ADDR"], "192.0.2.1"),
        (lambda request: request.META["HTTP_X_FORWARDED_FOR"], "198.51.100.7"),
        (lambda request: request.META["SERVER_PORT"], "8000"),
        (lambda request: request.COOKIES, {"theme": "dark", "lang": "en"}),
        (lambda request: request.get_host(), "example.org"),
        (lambda request: request.is_secure(), True),
        (lambda request: request.build_absolute_uri("/x"), "https://example.org/x"),
        (lambda request: request.get_full_path(), "/chat/caf%C3%A9/?next=/a&x=1"),
        (lambda request: request.method, "GET"),
        (lambda request: request.GET["next"], "/a"),
        (lambda request: (dict(request.POST), dict(request.FILES), request.body), ({}, {}, b"")),
        (lambda request: request.session.get("_auth_user_id") is not None, True),
        (lambda request: request.user.is_authenticated, True),
        (lambda request: bool(get_token(request)), True),
        (lambda request: request.resolver_match, None),
    ],
)
@override_settings(ALLOWED_HOSTS=["example.org"])
async def test_receiver_of_a_login_reads(user: User, read: Callable[[HttpRequest], Any], value: Any) -> None:
    with reading(read) as values:
        await login(scope_of(), user)
    assert values == [value]


async def test_receiver_of_a_logout_reads_the_user_who_leaves(user: User) -> None:
    scope = scope_of()
    await login(scope, user)
    with reading(lambda request: (request.user, request.headers["Host"], request.session["_auth_user_id"])) as values:
        await logout(scope)
    assert values == [(user, "example.org", str(user.pk))]
    assert not scope["user"].is_authenticated


async def test_receiver_awaits_the_user(user: User) -> None:
    with reading(lambda request: request) as requests:
        await login(scope_of(), user)
    assert await requests[0].auser() == user


async def test_request_awaits_the_user_before_django_has_set_one(user: User) -> None:
    assert await ConnectionRequest(scope_of(user=user)).auser() == user
    assert not (await ConnectionRequest(scope_of()).auser()).is_authenticated


@pytest.mark.parametrize(
    "more",
    [
        {"query_string": b"\xff=\xfe&%zz"},
        {"query_string": b""},
        {"headers": []},
        {"headers": [(b"x-\xff", b"\xff"), (b"content-type", b"text/plain; charset=nothing")]},
        {"headers": [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", b"5")]},
        {"headers": [(b"cookie", b"=;\xff=\xff;;")]},
        {"client": None, "server": None},
        {"root_path": "/chat"},
        {"type": "http", "method": "POST", "scheme": "http"},
        {"type": "http", "method": "POST", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]},
    ],
    ids=repr,
)
async def test_any_handshake_can_log_in(user: User, more: dict[str, Any]) -> None:
    def read_all(request: HttpRequest) -> list[object]:
        return [request.META, request.headers, request.COOKIES, request.GET, request.POST, request.FILES, request.body]

    with reading(read_all) as values:
        await login(scope_of(**more), user)
    [(_, _, _, _, post, files, body)] = values
    assert (len(post), len(files), body) == (0, 0, b"")


async def test_sparse_scope_of_a_test_can_log_in(user: User) -> None:
    scope: Scope = {"type": "websocket", "session": SessionStore()}
    with reading(lambda request: (request.path, request.scheme)) as values:
        await login(scope, user)
        await logout(scope)
    assert values == [("/", "http")] * 2
