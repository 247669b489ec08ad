import trio
from trio.testing import MockClock
from trio_channels.testing import WebsocketCommunicator

from clock import Clock


async def test_clock_ticks_once_a_second(autojump_clock: MockClock) -> None:
    async with WebsocketCommunicator(Clock.as_asgi(), "/ws/clock/") as ws:
        await ws.connect()
        started = trio.current_time()
        assert [await ws.receive_from(timeout=2) for _ in range(4)] == ["0", "1", "2", "3"]
        assert trio.current_time() - started == 3
