from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import HttpCommunicator

from server_sent_events import News


async def test_news_come_as_events(channel_layer: ChannelLayer) -> None:
    async with HttpCommunicator(News.as_asgi(), "GET", "/news/") as http:
        assert (await http.get_response_start())["status"] == 200
        assert await http.receive_body() == b": welcome\n\n"
        await channel_layer.group_send("news", {"type": "news.item", "text": "hello"})
        event = await http.receive_event()
        assert (event.event, event.json()) == ("message", "hello")
