"""People at their sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from board.routing import websocket_urlpatterns

from trio_channels import outbox
from trio_channels.routing import URLRouter
from trio_channels.testing import TopicCommunicator

TOPIC, CURSORS = "board:city-bus", "cursors:city-bus"
ROUTES = URLRouter(websocket_urlpatterns)


@asynccontextmanager
async def page_of(user: Any, *topics: str) -> AsyncIterator[TopicCommunicator]:
    """A page that has joined topics, while a relay sends what is committed."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await ROUTES({**scope, "user": user}, receive, send)

    async with outbox.relay(), TopicCommunicator(application) as page:
        await page.connect()
        for topic in topics:
            assert (await page.join(topic)).status == "ok"
        yield page
