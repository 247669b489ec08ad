import pytest

from chat.notify import call, last

pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]


async def test_message_comes_back(connect):
    client = await connect("/ws/chat/lobby/")
    await client.send_json_to({"text": "hello"})
    assert await client.receive_json_from() == {"text": "hello"}
    assert (await last()).text == "hello"


async def test_call():
    async def one():
        return 1

    assert await call(one) == 1
    assert await call(lambda: 2) == 2
