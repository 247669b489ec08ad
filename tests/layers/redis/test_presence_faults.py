"""Presence when processes are killed: ten thousand keys, and one process after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from trio_channels.layers.redis import keys as _keys

from .world import make_layers

pytestmark = [pytest.mark.faults, pytest.mark.time_limit(240)]

#: Keys of each process; and the lease, in which a busy machine must let a process of that many keys renew it.
COUNT, LEASE = 5_000, 5.0
#: Seconds for anything that a busy machine may do slowly.
PATIENCE = 60


@asynccontextmanager
async def process(url: str, prefix: str, first: int) -> AsyncIterator[trio.Process]:
    """Another process, which tracks keys from `first` on; the block begins when all of them are tracked."""
    setup = json.dumps([url, prefix, LEASE, first, COUNT])
    command = [sys.executable, "-m", "tests.layers.redis.presence_process", setup]
    async with trio.open_nursery() as nursery:
        child = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        try:
            with trio.fail_after(PATIENCE):
                told = b""
                while not told.endswith(b"\n"):
                    told += await child.stdout.receive_some() or pytest.fail("the process has ended")
            assert told == b"ready\n"
            yield child
        finally:
            child.kill()
            nursery.cancel_scope.cancel()


async def test_view_is_exact_after_a_kill(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LEASE", LEASE)
    [layer] = make_layers(url, presence={"keys": COUNT}, timeout=PATIENCE)
    own = {f"k{number}" for number in range(COUNT)}
    async with layer, layer.subscribe_presence("room") as events:
        with layer.open_mailbox() as mailbox:
            async with trio.open_nursery() as nursery:
                for key in own:
                    nursery.start_soon(layer.track_channel, "room", mailbox.name, key)
            for first in (COUNT, 2 * COUNT):
                theirs = {f"k{number}" for number in range(first, first + COUNT)}
                async with process(url, layer.prefix, first) as child:
                    with trio.fail_after(PATIENCE):
                        while len(events.state) < 2 * COUNT:
                            await anext(events)
                    assert set(events.state) == own | theirs
                    gone: list[str] = []
                    child.kill()
                    with trio.fail_after(PATIENCE):
                        while len(events.state) > COUNT:
                            gone += (await anext(events))["departed"]
                assert set(events.state) == own == set(await layer.presence("room"))
                assert sorted(gone) == sorted(theirs)
