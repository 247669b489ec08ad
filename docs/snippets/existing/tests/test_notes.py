import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient
from mysite.asgi import application
from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import WebsocketCommunicator, capture_on_commit_callbacks

ORIGIN = [(b"origin", b"http://testserver")]  # the host that Django allows in tests


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada")


async def test_note_reaches_an_open_page(ada: User, channel_layer: ChannelLayer, async_client: AsyncClient) -> None:
    ws = WebsocketCommunicator(application, "/ws/notes/", headers=ORIGIN)
    await ws.login(ada)
    await async_client.aforce_login(ada)
    async with ws:
        assert (await ws.connect())[0] is True
        async with capture_on_commit_callbacks(execute=True):
            response = await async_client.post("/notes/add/", {"text": "hello"})
            assert response.status_code == 204
        assert await ws.receive_json_from() == {"text": "hello"}


async def test_visitor_is_denied(trio_db: None, channel_layer: ChannelLayer) -> None:
    async with WebsocketCommunicator(application, "/ws/notes/", headers=ORIGIN) as ws:
        assert (await ws.connect())[0] is False
