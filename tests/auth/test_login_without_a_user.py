"""``login(scope, None)`` logs the scope's user in, and says so if there is none."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.db import SessionStore

from trio_channels.auth import get_user, login, logout
from trio_channels.sync import sync_to_async

from .test_auth import user

__all__ = ["user"]


def scope_with(**more: Any) -> dict[str, Any]:
    return {"type": "websocket", "path": "/", "session": SessionStore(), **more}


async def test_user_of_the_scope_is_logged_in(user: User, blocking_queries: None) -> None:
    scope = scope_with(user=user)
    await login(scope, None)
    assert scope["user"] is user
    await sync_to_async(scope["session"].save)()
    assert await get_user(scope_with(session=SessionStore(scope["session"].session_key))) == user


@pytest.mark.parametrize("more", [{}, {"user": None}, {"user": AnonymousUser()}])
async def test_nobody_cannot_be_logged_in(more: dict[str, Any]) -> None:
    scope = scope_with(**more)
    for given in (None, AnonymousUser()):
        with pytest.raises(ValueError, match=r"login\(\) expects a user, as an argument or in the scope"):
            await login(scope, given)  # type: ignore[arg-type]
    assert scope["session"].is_empty()
    assert scope.get("user") == more.get("user")


@pytest.mark.parametrize("more", [{}, {"user": None}, {"user": AnonymousUser()}])
async def test_logging_nobody_out_sends_no_signal(more: dict[str, Any], transactional_db: None) -> None:
    signals: list[Any] = []

    def receiver(**arguments: Any) -> None:
        signals.append(arguments["user"])

    scope = scope_with(**more)
    scope["session"]["key"] = "value"
    user_logged_out.connect(receiver)
    try:
        await logout(scope)
    finally:
        user_logged_out.disconnect(receiver)
    assert signals == []
    assert ("user" in scope) == ("user" in more)
    assert isinstance(scope.get("user", AnonymousUser()), AnonymousUser)
    assert scope["session"].is_empty()
