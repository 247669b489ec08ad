"""Probes: messages of a process to itself, sent through the pipeline and expected at the inbox reader.

Only a probe shows that the reader is connected to a detached node, where the connection is healthy but silent.
"""

from __future__ import annotations

import trio

from ...exceptions import ChannelLayerUnavailable
from .codec import PROBE, EntryCodec
from .inbox import InboxReader
from .keys import ShardKeys
from .pipeline import Pipeline
from .scripts import SEND_TO_PROCESS

#: Seconds between two probes, and missing probes after which the reader attaches again.
INTERVAL, MISSING = 4.0, 2


class Prober:
    """Sends probes, and makes the reader attach again when they do not arrive.

    Args:
        keys: of the shard, for this process.
        pipeline: sends the probes.
        reader: reads the inbox.
        codec: encodes the probes.
        capacity: of the inbox, in messages.
    """

    def __init__(
        self, *, keys: ShardKeys, pipeline: Pipeline, reader: InboxReader, codec: EntryCodec, capacity: int
    ) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._reader = reader
        self._codec = codec
        self._capacity = capacity
        self._sent = 0
        self._seen = 0

    def __repr__(self) -> str:
        return f"<Prober of {self._pipeline.name}, {self._sent - self._seen} under way>"

    def saw(self, number: int) -> None:
        """Note that a probe arrived. A forged number counts at most as the next probe."""
        self._seen = min(max(self._seen, number), self._sent + 1)

    def begin_again(self) -> None:
        """Expect no probe that was sent before."""
        self._seen = self._sent

    async def run(self) -> None:
        """Send probes until cancelled."""
        while True:
            await trio.sleep(INTERVAL)
            if self._sent - self._seen >= MISSING:
                self._doubt("probes did not arrive")
                continue
            attachment = self._reader.attachments
            blob = self._codec.pack(PROBE, str(self._sent + 1), {})
            keys = self._keys
            command = SEND_TO_PROCESS(
                keys.done, keys.inbox, keys.refused, args=(*keys.stamp(), self._capacity + 1, blob)
            )
            try:
                answer = await self._pipeline.call(*command)
            except ChannelLayerUnavailable:
                continue  # the pipeline logs it
            if answer == 1:
                self._sent += 1  # a full inbox (0) refuses the probe
            elif answer == -1 and attachment == self._reader.attachments:
                self._doubt("the inbox was gone")

    def _doubt(self, doubt: str) -> None:
        self.begin_again()
        self._reader.attach_again(doubt)
