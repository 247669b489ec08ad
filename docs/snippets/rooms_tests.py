from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import TopicCommunicator

from rooms import announce, application


async def test_message_reaches_everybody(channel_layer: ChannelLayer) -> None:
    async with TopicCommunicator(application) as ada, TopicCommunicator(application) as bob:
        await ada.connect()
        await bob.connect()
        assert (await ada.join("room:lobby", {"name": "ada"})).response == {"title": "Lobby"}
        await bob.join("room:lobby", {"name": "bob"})

        reply = await ada.push("room:lobby", "message.new", {"text": "hello"})
        assert (reply.status, reply.response) == ("ok", {"length": 5})
        message = await bob.receive_event("room:lobby", "message.new")
        assert message.payload == {"text": "hello"}

        await announce("lobby", "we close at ten")
        message = await bob.receive_event("room:lobby", "message.new")
        assert message.payload == {"text": "we close at ten"}


async def test_closed_room_refuses() -> None:
    async with TopicCommunicator(application) as client:
        await client.connect()
        reply = await client.join("room:closed")
        assert (reply.status, reply.response) == ("error", {"reason": "this room is closed"})


async def test_message_needs_a_text(channel_layer: ChannelLayer) -> None:
    async with TopicCommunicator(application) as client:
        await client.connect()
        await client.join("room:lobby")
        reply = await client.push("room:lobby", "message.new", {"text": 1})
        assert reply.response["message"] == "Expected `str`, got `int`"
        assert reply.response["at"] == "$.text"
