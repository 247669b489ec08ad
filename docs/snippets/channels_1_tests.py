from django.contrib.auth.models import User
from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import WebsocketCommunicator

from channels_1 import application


async def test_chat(ada: User, channel_layer: ChannelLayer) -> None:
    ws = WebsocketCommunicator(application, "/chat/lobby/")
    await ws.login(ada)
    async with ws:
        await ws.connect()
        await ws.send_to("hello")
        assert await ws.receive_from() == "ada: hello"
