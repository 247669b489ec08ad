"""The base class of ASGI middleware."""

from __future__ import annotations

from typing import Any

import pytest

from trio_channels.middleware import BaseMiddleware


async def application(scope: Any, receive: Any, send: Any) -> Any:
    scope["seen"] = True
    return scope, receive, send


async def test_inner_application_gets_a_copy_of_the_scope() -> None:
    scope = {"type": "http", "path": "/"}
    inner_scope, _, _ = await BaseMiddleware(application)(scope, None, None)  # type: ignore[arg-type]
    assert inner_scope == {"type": "http", "path": "/", "seen": True}
    assert scope == {"type": "http", "path": "/"}


async def test_receive_and_send_are_passed_on() -> None:
    receive, send = object(), object()
    _, *passed_on = await BaseMiddleware(application)({}, receive, send)  # type: ignore[arg-type]
    assert passed_on == [receive, send]


async def test_subclass_can_add_to_the_scope() -> None:
    class Greeting(BaseMiddleware):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            return await super().__call__(dict(scope, greeting="hello"), receive, send)

    inner_scope, _, _ = await Greeting(application)({}, None, None)  # type: ignore[arg-type]
    assert inner_scope["greeting"] == "hello"


async def test_exception_of_the_application_passes_through() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("inside")

    with pytest.raises(LookupError, match="inside"):
        await BaseMiddleware(fails)({}, None, None)  # type: ignore[arg-type]


def test_middleware_shows_what_it_wraps() -> None:
    assert repr(BaseMiddleware(BaseMiddleware(application))).startswith("<BaseMiddleware around <BaseMiddleware around")
