"""A session that has ended leaves nothing to the garbage collector."""

from __future__ import annotations

import gc
import weakref

import pytest
from trio.testing import wait_all_tasks_blocked

from ..rooms import ALL
from .client import LongPollClient, open_sessions, routed, served, socket_of


@pytest.mark.parametrize("end", ["vanishes", "is closed"])
async def test_session_that_has_ended_is_free_at_once(end: str) -> None:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        client = LongPollClient(application)
        gc.collect()
        gc.disable()
        try:
            await client.open()
            await client.post([None, "1", "phoenix", "heartbeat", {}])
            await client.receive()
            (reference,) = map(weakref.ref, open_sessions()._sessions.values())
            if end == "is closed":
                await client.post("[]")
            else:
                next(iter(open_sessions()._sessions.values())).vanish("test")
            await wait_all_tasks_blocked()
            assert reference() is None
        finally:
            gc.enable()
