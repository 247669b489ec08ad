from __future__ import annotations

import functools
import gc
from types import CoroutineType
from typing import Any
from unittest.mock import AsyncMock

from django.urls import path

from trio_channels._asgi.shortcut import note_shortcut, shortcut
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import OriginValidator
from trio_channels.testing import WebsocketCommunicator


class Greeter(AsyncWebsocketConsumer):
    greeting = "hello"

    def __init__(self, greeting: str | None = None) -> None:
        super().__init__()
        self.greeting = greeting or self.greeting

    async def connect(self) -> None:
        await self.accept()
        await self.send(f"{self.greeting} from {self.scope.get('seen', 'nowhere')}")


def marking(application: Any) -> Any:
    """A decorator as users write one: functools.wraps copies the application's shortcut."""

    @functools.wraps(application)
    async def wrapper(scope: Any, receive: Any, send: Any) -> Any:
        return await application({**scope, "seen": "here"}, receive, send)

    return wrapper


def test_application_of_a_consumer_has_a_shortcut() -> None:
    application = Greeter.as_asgi()
    assert shortcut(application) is not application


def test_decorated_application_has_none() -> None:
    application = marking(Greeter.as_asgi())
    assert shortcut(application) is application


async def greeting_of(application: Any) -> Any:
    communicator = WebsocketCommunicator(URLRouter([path("ws/", application)]), "/ws/")
    async with communicator:
        await communicator.connect()
        return await communicator.receive_from()


async def test_router_goes_through_a_decorator() -> None:
    assert await greeting_of(marking(Greeter.as_asgi())) == "hello from here"


async def test_router_passes_the_initkwargs_on() -> None:
    assert await greeting_of(Greeter.as_asgi(greeting="good day")) == "good day from nowhere"


class Passing:
    """An application that only calls another one."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await self._begin(scope, receive, send)

    def _begin(self, scope: Any, receive: Any, send: Any) -> Any:
        return self.application(scope, receive, send)


note_shortcut(Passing.__call__, Passing._begin)


async def seen(scope: Any, _receive: Any, _send: Any) -> Any:
    return scope.get("seen", "nowhere")


async def test_method_that_is_the_shortcut_of_a_class() -> None:
    scope: Any = {"seen": "there"}
    awaitable: Any = shortcut(Passing(seen))(scope, AsyncMock(), AsyncMock())
    assert awaitable.__qualname__ == "seen"
    assert await awaitable == "there"


def test_subclass_with_a_call_of_its_own_has_none() -> None:
    class Marking(Passing):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            return await super().__call__({**scope, "seen": "here"}, receive, send)

    application = Marking(seen)
    assert shortcut(application) is application


def test_mock_has_none() -> None:
    application = AsyncMock()
    assert shortcut(application) is application


async def test_own_call_of_a_router_and_a_validator_runs() -> None:
    class Router(URLRouter):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            return await super().__call__({**scope, "seen": scope["seen"] + " and there"}, receive, send)

    class Validator(OriginValidator):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            return await super().__call__({**scope, "seen": "here"}, receive, send)

    router = Router([path("ws/", Greeter.as_asgi())])
    communicator = WebsocketCommunicator(ProtocolTypeRouter({"websocket": Validator(router, ["*"])}), "/ws/")
    async with communicator:
        await communicator.connect()
        assert await communicator.receive_from() == "hello from here and there"


def coroutines() -> set[str]:
    gc.collect()
    # Not isinstance(): a lazy object of Django's would be made.
    return {it.__qualname__ for it in gc.get_objects() if type(it) is CoroutineType and it.cr_frame is not None}


async def test_routers_and_validators_keep_no_coroutine() -> None:
    """Each open WebSocket would keep them."""
    router = URLRouter([path("ws/", Greeter.as_asgi())])
    validator = OriginValidator(OriginValidator(router, ["*"]), ["*"])
    communicator = WebsocketCommunicator(ProtocolTypeRouter({"websocket": validator}), "/ws/")
    before = coroutines()
    async with communicator:
        await communicator.connect()
        await communicator.receive_from()
        kept = coroutines() - before
    assert "ProtocolTypeRouter.__call__" in kept
    assert not {name for name in kept if name.startswith(("URLRouter.", "OriginValidator."))}
