import trio.testing
from trio_channels.testing import WebsocketCommunicator, running_lifespan

from prices_life import application


async def test_price_is_told() -> None:
    async with running_lifespan(application) as state, WebsocketCommunicator(application, "/") as ws:
        await trio.testing.wait_all_tasks_blocked()  # the first poll
        ws.scope["state"] = dict(state)
        await ws.connect()
        await ws.send_json_to("ACME")
        assert await ws.receive_json_from() == 42.0
