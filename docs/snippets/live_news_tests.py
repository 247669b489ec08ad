from trio_channels.event_stream import EventStream
from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import HttpCommunicator


async def test_news_come_as_events(channel_layer: ChannelLayer) -> None:
    application = EventStream.as_asgi(groups=["news"])
    async with HttpCommunicator(application, "GET", "/") as client:
        assert (await client.receive_event()).event == "stream.open"
        await channel_layer.group_send("news", {"type": "news.item", "text": "hello"})
        event = await client.receive_event()
        assert event.event == "news.item"
        assert event.json() == {"text": "hello"}
