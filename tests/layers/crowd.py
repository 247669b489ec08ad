"""A group so large that a message reaches it in several parts."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import ExitStack
from typing import Any

import trio

from trio_channels.layers.hub import PART
from trio_channels.layers.local import LocalDelivery

MANY = 9 * PART + 1


class Crowd:
    """The members' mailboxes, by their places in the group; their messages must have an `n`."""

    def __init__(self, layer: LocalDelivery, stack: ExitStack, count: int = MANY) -> None:
        self.layer = layer
        self.mailboxes = [stack.enter_context(layer.open_mailbox()) for _ in range(count)]

    async def join(self) -> None:
        for mailbox in self.mailboxes:
            await self.layer.group_add("crowd", mailbox.name)

    def send(self, number: int) -> Awaitable[None]:
        return self.layer.group_send("crowd", {"type": "test.message", "n": number})

    def take(self) -> list[list[int]]:
        """The numbers of each member's messages since the last call."""
        return [[item["n"] for item in items] for items in self.take_items()]

    def take_items(self) -> list[list[Any]]:
        """Each member's messages and gaps since the last call."""
        return [list(iter(mailbox.get_nowait, None)) for mailbox in self.mailboxes]

    async def at(self, place: int, count: int = 1) -> None:
        """Wait until `count` items wait for the member at that place."""
        with trio.fail_after(30):
            while self.mailboxes[place].statistics().waiting < count:
                await trio.lowlevel.checkpoint()
