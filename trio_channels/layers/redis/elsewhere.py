"""Group memberships of channels of other processes: a request to the owner, which carries it out and confirms it.

The rules:

- Only the process that made a channel knows its mailbox. So it gets a request, as an entry in its inbox.
- It changes its own table when it reads the request, and confirms it once Redis knows of the membership, with an entry
  in the inbox of the process that has asked.
- The caller waits for the confirmation. So ``group_add`` and ``group_discard`` promise the same for every channel.
- A process that has ended has no inbox and no members: nothing is to be done.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from ...exceptions import ChannelLayerUnavailable
from ..hub import Hub
from .codec import MEMBERSHIP, EntryCodec, Payload

JOIN, LEAVE, CONFIRM = "join", "leave", "confirm"


class _Request(NamedTuple):
    asker: str  # the process that has asked
    number: int
    group: str
    joined: bool


class MembershipsElsewhere:
    """The requests of one session: its own to other processes, and those of others to it."""

    def __init__(
        self,
        *,
        process: str,
        hub: Hub,
        codec: EntryCodec,
        send: Callable[[str, bytes], Awaitable[int]],
        wait_until_joined: Callable[[str], Awaitable[None]],
        timeout: float,
    ) -> None:
        self._process = process
        self._hub = hub
        self._codec = codec
        self._send = send  # puts a blob into the inbox of a process: 1 accepted, 0 full, -1 no such inbox
        self._wait_until_joined = wait_until_joined
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._confirmed: dict[int, trio.Event] = {}
        # Not bounded: each entry came out of an inbox, which is, and takes `timeout` at the most.
        self._done, self._to_confirm = trio.open_memory_channel[_Request](math.inf)

    def __repr__(self) -> str:
        return f"<MembershipsElsewhere of {self._process}, {len(self._confirmed)} requests wait>"

    async def change(self, action: str, group: str, channel: str, owner: str) -> None:
        """Have the owner add a channel to a group, or discard it, and wait until it has.

        Raises:
            ChannelLayerUnavailable: the owner, or Redis, did not confirm it in time.

        Cancellation: the owner may carry it out.
        """
        number = next(self._numbers)
        event = self._confirmed[number] = trio.Event()
        try:
            answer = await self._send(owner, self._pack(channel, action, group, number))
            if answer < 0:
                return
            if answer == 0:
                raise ChannelLayerUnavailable(f"the inbox of the process of {channel!r} is full; try again")
            with trio.move_on_after(self._timeout):
                await event.wait()
                return
        finally:
            del self._confirmed[number]
        raise ChannelLayerUnavailable(
            f"the process of {channel!r} did not confirm within {self._timeout:g} seconds that the channel has "
            f"{'joined' if action == JOIN else 'left'} the group {group!r}; it may still do it"
        )

    def _pack(self, channel: str, action: str, group: str, number: int) -> bytes:
        content = {"type": action, "group": group, "process": self._process, "number": number}
        return self._codec.pack(MEMBERSHIP, channel, content)

    def receive(self, payload: Payload) -> None:
        """Carry out a request, or note a confirmation; raises KeyError or TypeError for a malformed one."""
        action, group, process, number = (payload.message[key] for key in ("type", "group", "process", "number"))
        if action not in (JOIN, LEAVE, CONFIRM) or not (isinstance(group, str) and isinstance(process, str)):
            raise TypeError(f"expected a request about a membership; got {payload.message!r:.80}")
        if action == CONFIRM:
            if (event := self._confirmed.get(number)) is not None:  # else its caller waits no more
                event.set()
            return
        mailbox = self._hub.find(payload.name) if action == JOIN else None
        if action == LEAVE:
            self._hub.leave(group, payload.name)
        elif mailbox is not None:
            self._hub.join(group, mailbox)
        self._done.send_nowait(_Request(process, number, group, action == JOIN and mailbox is not None))

    async def run(self) -> None:
        """Confirm the requests that were carried out, until cancelled."""
        async with trio.open_nursery() as nursery:
            async for request in self._to_confirm:
                nursery.start_soon(self._confirm, request)

    async def _confirm(self, request: _Request) -> None:
        try:
            if request.joined:
                await self._wait_until_joined(request.group)
            await self._send(request.asker, self._pack("confirmed", CONFIRM, request.group, request.number))
        except ChannelLayerUnavailable:
            pass  # the caller gets no confirmation, and raises it, too
