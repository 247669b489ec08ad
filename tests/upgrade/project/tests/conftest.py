import pytest_asyncio
from channels.testing import WebsocketCommunicator

from mysite.asgi import application


@pytest_asyncio.fixture(loop_scope="function")
async def connect():
    opened = []

    async def connect(path):
        client = WebsocketCommunicator(application, path, headers=[(b"origin", b"http://localhost")])
        connected, _ = await client.connect()
        assert connected
        opened.append(client)
        return client

    yield connect
    for client in opened:
        await client.disconnect()
