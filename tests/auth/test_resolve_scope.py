"""Subclasses of ``AuthMiddleware`` that find users of their own, as Channels allows."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore

from trio_channels._threads.database import thread_pool
from trio_channels.auth import AuthMiddleware, UserLazyObject, get_user
from trio_channels.exceptions import ConfigurationError
from trio_channels.sessions import SessionMiddlewareStack
from trio_channels.testing import ScriptedConnection

from .test_auth import cookie_of, session, user

__all__ = ["session", "user"]


async def user_of(middleware: type[AuthMiddleware], headers: Any = (), **more: Any) -> Any:
    """The user that an application inside a middleware sees."""
    found: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["user"])

    scope = {"type": "websocket", "path": "/", "headers": list(headers), **more}
    await ScriptedConnection(scope, []).run(SessionMiddlewareStack(middleware(application)))
    return found[0]


class Wraps(AuthMiddleware):
    async def resolve_scope(self, scope: Any) -> None:
        scope["user"]._wrapped = "ada"


class Replaces(AuthMiddleware):
    async def resolve_scope(self, scope: Any) -> None:
        scope["user"] = "ada"


class Populates(AuthMiddleware):
    def populate_scope(self, scope: Any) -> None:
        scope["user"] = "ada"


class Calls(AuthMiddleware):
    async def resolve_scope(self, scope: Any) -> None:
        await super().resolve_scope(scope)
        scope["user"] = f"{scope['user']} and ada"


class Reads(AuthMiddleware):
    """Reads the session, which must be loaded then."""

    async def resolve_scope(self, scope: Any) -> None:
        scope["user"] = scope["session"].get("_auth_user_id")


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [(Wraps, "ada"), (Replaces, "ada"), (Populates, "ada"), (Calls, "AnonymousUser and ada"), (Reads, None)],
)
async def test_overridden_method_is_called(middleware: type[AuthMiddleware], expected: Any) -> None:
    seen = await user_of(middleware)
    assert seen == expected
    assert type(seen) is not UserLazyObject


async def test_overridden_method_may_read_the_session(
    user: User, session: SessionStore, blocking_queries: None
) -> None:
    assert await user_of(Reads, cookie_of(session)) == str(user.pk)


async def test_user_of_the_session_costs_one_call(user: User, session: SessionStore, blocking_queries: None) -> None:
    before = thread_pool().statistics().calls
    seen = await user_of(AuthMiddleware, cookie_of(session))
    assert (type(seen), seen) == (User, user)
    assert thread_pool().statistics().calls == before + 1


@pytest.mark.parametrize("middleware", [Wraps, Replaces])
async def test_user_of_another_middleware_is_overridden(middleware: type[AuthMiddleware]) -> None:
    user = User(username="given")
    assert await user_of(AuthMiddleware, user=user) is user
    if middleware is Replaces:
        assert await user_of(middleware, user=user) == "ada"


async def test_resolve_scope_that_sets_no_user_is_named() -> None:
    class Nothing(AuthMiddleware):
        async def resolve_scope(self, scope: Any) -> None: ...

    with pytest.raises(ConfigurationError, match=r"must set the user: scope\['user'\] = user; it has set none"):
        await user_of(Nothing)


async def test_user_that_is_read_too_early_is_an_error() -> None:
    class Early(AuthMiddleware):
        async def resolve_scope(self, scope: Any) -> None:
            scope["user"] = scope["user"].username

    with pytest.raises(ConfigurationError, match=r"is read before resolve_scope\(\)"):
        await user_of(Early)


async def test_token_instead_of_a_session() -> None:
    class Token(AuthMiddleware):
        async def resolve_scope(self, scope: Any) -> None:
            token = scope["query_string"].decode()
            scope["user"] = User(username=token) if token else await get_user(scope)

    assert (await user_of(Token, query_string=b"ada")).username == "ada"
    assert isinstance(await user_of(Token, query_string=b""), AnonymousUser)
