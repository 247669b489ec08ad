"""The command link: every command of a shard over one connection, strictly in order, as many in one write as wait.

The rules:

- A command is sent, and answered, in the order in which it was given. Commands that wait go out in one write.
- What was sent and not answered when the connection broke is sent again, in order, on the next one. Each command is
  either idempotent or carries a token by which its receivers know it again.
- At most ``IN_FLIGHT`` commands are unanswered at a time.
- A caller waits at most ``timeout`` seconds, and can be cancelled. Neither touches the connection: a command that was
  sent keeps its place, and its answer is dropped; one that was not sent yet is withdrawn.
- A reply that says "not here, not now" (a moved slot, a replica, a server that is loading) breaks the connection, so
  that the next one is opened where the topology says.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from ..._bell import Bell
from ...exceptions import ChannelLayerUnavailable
from ._hosts import Host
from ._scripts import ALL
from ._window import WIDTH
from ._wire import Argument, CommandRefused, LinkLost, ReplyError, Wire, encode, open_wire

logger = logging.getLogger("trio_channels.layers.redis")

FIRST_BACK_OFF, LAST_BACK_OFF = 0.05, 2.0
#: Commands under way. All of them may be sent again, and receivers know as many tokens of one sender.
IN_FLIGHT = WIDTH

#: Errors after which the command may succeed on another connection, or later.
_ELSEWHERE_OR_LATER = (
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "NOREPLICAS",  # a primary that is cut off, and told (min-replicas-to-write) to take nothing then
    "NOSCRIPT",
    "UNBLOCKED",
    "BUSY ",
    "ERR Script attempted to access a non local key",
    "ERR Script attempted to execute a",  # (write) command while the cluster is down
    "ERR Error running script",  # followed by one of the above, from inside
)


def is_elsewhere_or_later(error: Exception) -> bool:
    """Whether an error reply asks for another try rather than for another command."""
    text = str(error)
    if text.startswith("ERR Error running script"):
        return any(
            mark in text
            for mark in (
                "READONLY",
                "MOVED",
                "CLUSTERDOWN",
                "TRYAGAIN",
                "NOREPLICAS",
                "non local key",
                "cluster is down",
            )
        )
    return text.startswith(_ELSEWHERE_OR_LATER)


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """A snapshot of a link: its state, what waits to be sent, what waits for its answer, connections opened so far."""

    connected: bool
    waiting: int
    unanswered: int
    connections: int


class _Command:
    """One command, from the call to its answer."""

    __slots__ = ("abandoned", "bell", "data", "reply", "sent_at")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bell = Bell()
        self.reply: Any = None
        self.sent_at = math.inf
        self.abandoned = False


class BackOff:
    """How long to wait before the next try: jittered, doubling, reset by success.

    Success is an answered command, not a connection: a server that is loading, or is a replica, takes those, too.
    """

    def __init__(self) -> None:
        self._next = FIRST_BACK_OFF

    async def wait(self) -> None:
        """Sleep."""
        await trio.sleep(self._next * random.uniform(0.5, 1.0))
        self._next = min(self._next * 2, LAST_BACK_OFF)

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._next = FIRST_BACK_OFF


class CommandLink:
    """Ordered, pipelined commands to wherever `locate` says the shard is.

    Args:
        name: for log lines.
        locate: says where to connect to, anew each time.
        timeout: seconds that a caller waits, and after which a silent connection is given up.
    """

    def __init__(self, name: str, locate: Callable[[], Awaitable[Host]], timeout: float) -> None:
        self.name = name
        self._locate = locate
        self._timeout = timeout
        self._waiting: dict[_Command, None] = {}
        self._unanswered: deque[_Command] = deque()
        self._bell = Bell()
        self._back_off = BackOff()
        self._in_outage = False
        self._connected = False
        self._connections = 0
        self._last_error = "it has not been connected yet"

    def __repr__(self) -> str:
        state = "connected" if self._connected else f"not connected: {self._last_error}"
        return f"<CommandLink {self.name}, {state}, {len(self._waiting)} waiting, {len(self._unanswered)} unanswered>"

    def statistics(self) -> LinkStatistics:
        """An immutable snapshot."""
        return LinkStatistics(self._connected, len(self._waiting), len(self._unanswered), self._connections)

    async def call(self, *arguments: Argument) -> Any:
        """Have Redis run a command; returns its reply.

        Raises:
            ChannelLayerUnavailable: there was no answer in time. A command that had been sent may yet take effect.
            CommandRefused: Redis refused the command.

        Cancellation: as after a time-out.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        command = _Command(encode(*arguments))
        self._waiting[command] = None
        self._bell.ring()
        try:
            with trio.move_on_after(self._timeout):
                await command.bell.wait()
                if isinstance(command.reply, ReplyError):
                    raise CommandRefused(f"{self.name} refuses: {command.reply}")
                return command.reply
        finally:
            command.abandoned = True
            self._waiting.pop(command, None)
        sent = command.sent_at != math.inf
        raise ChannelLayerUnavailable(
            f"{self.name} did not answer within {self._timeout:g} seconds"
            f" ({'sent, it may yet take effect' if sent else 'not sent'}); "
            f"{'connected' if self._connected else self._last_error}"
        )

    async def run(self) -> None:
        """Keep a connection, and serve the calls, until cancelled."""
        while True:
            try:
                wire = await open_wire(await self._locate(), self._timeout)
                try:
                    await _load_scripts(wire, self._timeout)
                    self._connected = True
                    self._connections += 1
                    await self._serve(wire)
                finally:
                    self._connected = False
                    with trio.CancelScope(shield=True):
                        await wire.aclose()
            except LinkLost as error:
                self._last_error = str(error)
                if not self._in_outage:
                    self._in_outage = True
                    logger.warning("%s is not available: %s. Trying again until it is.", self.name, error)
            except Exception as error:
                # A defect, or a server like no other. What waits is still there, and the next connection begins anew.
                self._last_error = f"{type(error).__name__}: {error}"
                logger.exception("%s failed, and begins again", self.name)
            await self._back_off.wait()

    def _answered(self, wire: Wire) -> None:
        self._back_off.reset()
        if self._in_outage:
            self._in_outage = False
            logger.info("%s is available again, at %s", self.name, wire.host)

    async def _serve(self, wire: Wire) -> None:
        # What was not answered goes first; nobody waits any more for what was abandoned, but it may have been promised.
        again = {command: None for command in self._unanswered if not command.abandoned}
        self._unanswered.clear()
        self._waiting = again | self._waiting
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, wire)
                nursery.start_soon(self._watch)
                await self._read(wire)
        except BaseExceptionGroup as group:
            others = group.split(LinkLost)[1]
            if others is not None:
                raise others from None  # a cancellation, or a defect: either is more than a lost link
            raise LinkLost(str(next(_leaves(group)))) from group

    async def _write(self, wire: Wire) -> None:
        while True:
            batch = list(itertools.islice(self._waiting, IN_FLIGHT - len(self._unanswered)))
            if batch:
                now = trio.current_time()
                for command in batch:
                    del self._waiting[command]
                    command.sent_at = now
                self._unanswered.extend(batch)
                await wire.send(b"".join([command.data for command in batch]))
            else:
                await self._bell.wait()

    async def _read(self, wire: Wire) -> None:
        while True:
            for reply in await wire.receive():
                if not self._unanswered:
                    raise LinkLost(f"{wire.host} sent what nobody had asked for: {reply!r:.100}")
                if isinstance(reply, ReplyError) and is_elsewhere_or_later(reply):
                    raise LinkLost(f"{wire.host} says: {reply}")
                command = self._unanswered.popleft()
                command.reply = reply
                command.bell.ring()
            self._answered(wire)
            if self._waiting:
                self._bell.ring()  # there is room for more again

    async def _watch(self) -> None:
        """Give up a connection that has gone silent: it may be half open, and would never say so."""
        while True:
            await trio.sleep(self._timeout / 4)
            if self._unanswered and self._unanswered[0].sent_at < trio.current_time() - self._timeout:
                raise LinkLost(f"no answer for {self._timeout:g} seconds")


async def _load_scripts(wire: Wire, patience: float) -> None:
    for reply in await wire.exchange(*(script.load for script in ALL), patience=patience):
        if isinstance(reply, ReplyError):
            raise LinkLost(f"{wire.host} refused a script: {reply}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> Any:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
