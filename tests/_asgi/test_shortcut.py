from __future__ import annotations

import functools
from typing import Any

from django.urls import path

from trio_channels._asgi.shortcut import shortcut
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import URLRouter
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
