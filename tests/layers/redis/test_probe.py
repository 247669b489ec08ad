"""A prober's answers, each from a pipeline that is made up: which make the reader attach again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.redis.codec import EntryCodec
from trio_channels.layers.redis.probe import INTERVAL, MISSING, Prober

MISSED = "probes did not arrive"


@pytest.mark.parametrize(
    ("answers", "attached_again", "doubts"),
    [
        ([1] * MISSING, False, [MISSED]),
        ([0] * 2 * MISSING, False, []),
        ([ChannelLayerUnavailable("away")] * 2 * MISSING, False, []),
        ([-1], False, ["the inbox was gone"]),
        ([-1], True, []),
        ([1, -1, 1], False, ["the inbox was gone"]),
    ],
    ids=[
        "missing",
        "refused: full",
        "not answered",
        "no inbox",
        "no inbox, but a new one since",
        "the count begins again",
    ],
)
async def test_answers_to_probes(
    answers: list[int | Exception], attached_again: bool, doubts: list[str], autojump_clock: Any
) -> None:
    told: list[str] = []
    left = list(answers)
    over = trio.Event()
    reader = SimpleNamespace(attachments=1, attach_again=told.append)

    async def call(*_command: Any) -> int:
        await trio.lowlevel.checkpoint()
        reader.attachments += attached_again
        if not left:
            over.set()
            return 0
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    keys = SimpleNamespace(done="done", inbox="inbox", refused="refused", stamp=lambda: ("sender", 1))
    prober = Prober(
        keys=keys,  # type: ignore[arg-type]
        pipeline=SimpleNamespace(call=call, name="made up"),  # type: ignore[arg-type]
        reader=reader,  # type: ignore[arg-type]
        codec=EntryCodec(),
        capacity=10,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prober.run)
        await over.wait()
        nursery.cancel_scope.cancel()
    assert told == doubts
    assert trio.current_time() >= INTERVAL * len(answers)
