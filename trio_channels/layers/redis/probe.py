"""Messages to oneself: sent by the command pipeline, and expected at the reader.

A reader that is attached to a detached node sees a healthy connection and no messages; only this tells.
"""

from __future__ import annotations

import trio

from ...exceptions import ChannelLayerUnavailable
from .codec import PROBE, EntryCodec
from .inbox import InboxReader
from .keys import ShardKeys
from .pipeline import Pipeline
from .scripts import SEND_TO_PROCESS

#: Seconds between two messages to oneself, and how many may be missing before the reader attaches again.
INTERVAL, MISSING = 4.0, 2


class Prober:
    """Sends the messages, and counts those that came.

    Args:
        keys: of the shard, for this process.
        pipeline: sends them.
        reader: is made to attach again when they do not come.
        codec: makes them.
        capacity: of the inbox.
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
        return f"<Prober of {self._pipeline.name}, {self._sent - self._seen} on their way>"

    def saw(self, number: int) -> None:
        """A message came; one that was forged can be no further ahead than the next."""
        self._seen = min(max(self._seen, number), self._sent + 1)

    def begin_again(self) -> None:
        """What is on its way need not come any more."""
        self._seen = self._sent

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await trio.sleep(INTERVAL)
            if self._sent - self._seen >= MISSING:
                self._doubt("messages to oneself did not arrive")
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
                continue  # the link has said so
            if answer == 1:
                self._sent += 1  # a full inbox has not taken it
            elif answer == -1 and attachment == self._reader.attachments:
                self._doubt("the inbox was gone")

    def _doubt(self, doubt: str) -> None:
        self.begin_again()
        self._reader.attach_again(doubt)
