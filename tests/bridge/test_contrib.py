"""Django's asynchronous authentication, sessions, cache and test client in a Trio run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trio
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, override_settings
from django.urls import path
from django.utils import translation

from tests.conftest import CACHE_TABLE
from trio_channels._threads.thread import in_pool_thread

#: Each with the cache it uses. (That of ``cached_db`` Django asks without ``await``: it must not be in the database.)
BACKENDS = [("db", ""), ("cache", "database"), ("cached_db", "default"), ("file", ""), ("signed_cookies", "")]

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "bridge"},
    "database": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": CACHE_TABLE},
}


# -- auth -------------------------------------------------------------------------------------------------------------


def request_with_session() -> HttpRequest:
    request = AsyncRequestFactory().get("/")
    request.session = import_module("django.contrib.sessions.backends.db").SessionStore()
    request.user = AnonymousUser()
    request.auser = partial(auth.aget_user, request)
    return request


@pytest.mark.usefixtures("database")
async def test_user_signs_in_and_out() -> None:
    await User.objects.acreate_user("ada", password="secret")
    assert await auth.aauthenticate(username="ada", password="wrong") is None
    user = await auth.aauthenticate(username="ada", password="secret")
    assert user is not None
    request = request_with_session()
    await auth.alogin(request, user)
    assert await auth.aget_user(request) == user
    await auth.aupdate_session_auth_hash(request, user)
    await auth.alogout(request)
    assert isinstance(await auth.aget_user(request), AnonymousUser)


@pytest.mark.usefixtures("database")
async def test_users_permissions_are_asked() -> None:
    user = await User.objects.acreate_user("ada", password="secret")
    permission = await Permission.objects.aget(codename="add_user")
    await user.user_permissions.aadd(permission)
    user = await User.objects.aget(username="ada")
    assert await user.ahas_perm("auth.add_user")
    assert await user.aget_all_permissions() == {"auth.add_user"}
    assert await user.acheck_password("secret")


# -- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(("backend", "cache"), BACKENDS, ids=[backend for backend, _cache in BACKENDS])
async def test_session_of_every_backend_is_kept(backend: str, cache: str, tmp_path: Path) -> None:
    store = import_module(f"django.contrib.sessions.backends.{backend}").SessionStore
    with override_settings(CACHES=CACHES, SESSION_FILE_PATH=str(tmp_path), SESSION_CACHE_ALIAS=cache):
        session = store()
        await session.aset("name", "ada")
        await session.asave()
        again = store(session.session_key)
        assert await again.aget("name") == "ada"
        assert await again.aget_expiry_age() > 0
        await again.acycle_key()
        await again.aflush()
        assert await again.aget("name") is None


# -- cache ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("alias", sorted(CACHES))
async def test_cache_keeps_and_forgets(alias: str) -> None:
    with override_settings(CACHES=CACHES):
        cache = caches[alias]
        await cache.aset("a", 1)
        assert await cache.aget("a") == 1
        assert await cache.aget_or_set("b", 2) == 2
        assert await cache.aincr("a") == 2
        assert await cache.aget_many(["a", "b"]) == {"a": 2, "b": 2}
        assert await cache.ahas_key("a")
        await cache.adelete("a")
        assert await cache.aget("a") is None
        await cache.aclear()
        assert await cache.aget("b") is None


# -- the test client --------------------------------------------------------------------------------------------------


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{in_pool_thread()} {request.user} {User.objects.count()} {translation.get_language()}")


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await trio.lowlevel.checkpoint()
    user = await request.auser()
    return HttpResponse(f"{in_pool_thread()} {user} {await User.objects.acount()} {translation.get_language()}")


async def streaming(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield str(await User.objects.acount()).encode()

    return StreamingHttpResponse(parts())


async def failing(request: HttpRequest) -> HttpResponse:
    raise LookupError("no such thing")


urlpatterns = [
    path("plain/", plain),
    path("asynchronous/", asynchronous),
    path("streaming/", streaming),
    path("failing/", failing),
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture
def client(database: dict[str, Any]) -> Any:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=MIDDLEWARE, USE_I18N=True):
        yield AsyncClient()


@pytest.mark.parametrize(("view", "worker"), [("plain", True), ("asynchronous", False)])
async def test_asynchronous_client_asks_views_of_both_kinds(client: AsyncClient, view: str, worker: bool) -> None:
    user = await User.objects.acreate_user("ada", password="secret")
    answer = await client.get(f"/{view}/", headers={"accept-language": "de"})
    assert answer.content.decode() == f"{worker} AnonymousUser 1 de"
    await client.aforce_login(user)
    answer = await client.get(f"/{view}/", headers={"accept-language": "fr"})
    assert answer.content.decode() == f"{worker} ada 1 fr"
    await client.alogout()
    assert settings.SESSION_COOKIE_NAME not in client.cookies
    assert await client.alogin(username="ada", password="secret")


async def test_asynchronous_client_reads_a_stream(client: AsyncClient) -> None:
    answer = await client.get("/streaming/")
    assert [part async for part in answer] == [b"0", b"0", b"0"]


async def test_asynchronous_client_shows_what_a_view_raised(client: AsyncClient) -> None:
    with pytest.raises(LookupError, match="no such thing"):
        await client.get("/failing/")
    client.raise_request_exception = False
    answer = await client.get("/failing/")
    assert answer.status_code == 500
    assert answer.exc_info[0] is LookupError


async def test_request_to_nowhere_is_404(client: AsyncClient) -> None:
    assert (await client.get("/nowhere/")).status_code == 404
