import pytest
from trio_channels.testing import ScriptedConnection, WebsocketCommunicator

from echo import Echo


async def test_what_comes_is_sent_back() -> None:
    async with WebsocketCommunicator(Echo.as_asgi(), "/ws/") as ws:
        accepted, subprotocol = await ws.connect()
        assert accepted
        assert subprotocol is None
        await ws.send_to(text_data="hello")
        assert await ws.receive_from() == "hello"
        assert await ws.receive_nothing()
        await ws.disconnect()


async def test_exception_of_a_handler_reaches_the_test() -> None:
    async with WebsocketCommunicator(Echo.as_asgi(), "/ws/") as ws:
        await ws.connect()
        await ws.send_to(text_data="fail")
        with pytest.raises(ValueError, match="asked to fail"):
            await ws.receive_from()


async def test_disconnect_is_told_the_code_of_the_client() -> None:
    codes = []

    class Recorder(Echo):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    await ScriptedConnection.websocket("hello", code=4000).run(Recorder.as_asgi())
    assert codes == [4000]
