import pytest
from django.contrib.auth.models import User
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.db import database_sync_to_async
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import WebsocketCommunicator, capture_on_commit_callbacks

from outside import connect_signals


class Greeting(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        await self.send(f"hello, {self.scope['user']}")


@pytest.fixture
def ada(db: None) -> User:  # a synchronous fixture may use the ORM as it is
    return User.objects.create_user("ada")


async def test_user_is_greeted(ada: User) -> None:
    ws = WebsocketCommunicator(AuthMiddlewareStack(Greeting.as_asgi()), "/ws/")
    await ws.login(ada)
    async with ws:
        await ws.connect()
        assert await ws.receive_from() == "hello, ada"


async def test_new_user_is_announced(trio_db: None, channel_layer: ChannelLayer) -> None:
    connect_signals()  # its handler sends in transaction.on_commit()
    async with channel_layer.subscribe("news") as events:
        async with capture_on_commit_callbacks(execute=True):
            await database_sync_to_async(User.objects.create_user)("grace")
        assert await anext(events) == {"type": "news.item", "text": "grace has joined"}
