"""``CookieMiddleware.set_cookie`` with the arguments and defaults of Channels."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from trio_channels.sessions import CookieMiddleware


def cookie(*args: Any, **options: Any) -> str:
    message: dict[str, Any] = {"type": "websocket.accept"}
    CookieMiddleware.set_cookie(message, "k", "v", *args, **options)
    [(name, value)] = message["headers"]
    assert name == b"set-cookie"
    return str(value.decode())


def test_cookie_is_lax_by_default() -> None:
    assert cookie() == "k=v; Path=/; SameSite=lax"


@pytest.mark.parametrize(("samesite", "end"), [("Strict", "; SameSite=Strict"), (None, ""), (False, ""), ("", "")])
def test_samesite_may_be_given(samesite: Any, end: str) -> None:
    assert cookie(samesite=samesite) == f"k=v; Path=/{end}"


def test_options_may_be_positional() -> None:
    given = cookie(60, None, "/ws/", "example.org", True, True, "Strict")
    for part in ("Max-Age=60", "Path=/ws/", "Domain=example.org", "Secure", "HttpOnly", "SameSite=Strict"):
        assert part in given.split("; ")


@pytest.mark.parametrize("max_age", [60, 60.0, datetime.timedelta(minutes=1)])
def test_max_age_is_in_seconds(max_age: Any) -> None:
    assert "Max-Age=60" in cookie(max_age).split("; ")


def test_expiry_may_be_a_time() -> None:
    assert "expires=Thu, 01 Jan 2099 00:00:00 GMT" in cookie(expires=datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC))
