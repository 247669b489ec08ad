from pathlib import Path

import pytest

from chat.pool import read, size


@pytest.mark.asyncio
@pytest.mark.django_db(transaction=True)
async def test_ticks(connect):
    client = await connect("/ws/ticks/")
    told = {await client.receive_from(), await client.receive_from()}
    assert {line[3:] for line in told} == {"0", "1"}


@pytest.mark.asyncio
async def test_pool():
    assert await size() == 0
    assert "read_text" in await read(Path(__file__).parent.parent / "chat" / "pool.py")
