"""The pipeline: all commands of a shard over one connection, strictly in order, in as few writes as possible.

The rules:

- One batch is under way at a time. When its replies have come, all calls that wait become the next one, in one write.
- After a lost connection the unanswered commands are sent again, in order, on the next one. The scripts recognise by a
  number the commands that Redis has carried out.
- A caller waits at most ``timeout`` seconds, no longer than the layer is open, and can be cancelled. That does not
  affect the connection: a command that was sent keeps its place, and its reply is dropped; one that was not sent is
  withdrawn.
- An error reply that means "not here" or "not now" (a moved slot, a replica, a server that is loading) ends the
  connection. The next one is opened to the server that the topology names.
- The pipeline also asks the topology at intervals: a primary that was cut off and replaced still answers normally.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from ..._concurrency.backoff import BackOff
from ..._concurrency.exception_groups import bare, leaves
from ..._concurrency.wakeup import Wakeup
from ...exceptions import ChannelLayerUnavailable
from .batch import NO_ANSWER, NOT_CARRIED_OUT, Batch, Call, Combine
from .connection import (
    Argument,
    CommandRefused,
    ConnectionLost,
    RedisConnection,
    ReplyError,
    connect_timeout_for,
    encode,
    open_connection,
    refused,
)
from .contact import FirstContact, Outage
from .delivery import WIDTH
from .hosts import Host
from .scripts import ALL_SCRIPTS

#: Seconds between two questions to the topology where the shard is.
TOPOLOGY_INTERVAL = 4.0
#: Most commands in one batch. All may be sent again, so receivers remember as many tokens of each sender.
IN_FLIGHT = WIDTH
#: Most bytes in one batch, unless a single command has more: Redis serves no other client while it executes a batch.
BATCH_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class PipelineStatistics:
    """A snapshot of a pipeline: calls that wait to be sent or for replies; connections and outages so far."""

    connected: bool
    waiting: int
    unanswered: int
    connections: int
    outages: int = 0


class Pipeline:
    """Ordered, pipelined commands to the server of a shard."""

    def __init__(self, name: str, locate: Callable[[], Awaitable[Host]], timeout: float) -> None:
        self.name = name
        self._locate = locate
        self._timeout = timeout
        self._waiting: dict[Call, None] = {}
        self._batch: Batch | None = None  # sent, and not answered yet
        self._sent_at = math.inf
        self._connection: RedisConnection | None = None
        self._gathering = False
        self._rest = b""  # the part of the batch that the system did not take at once
        self._rest_ready = Wakeup()
        self._back_off = BackOff()
        self._outage: Outage | None = None
        self._outages = 0
        self._closed = False
        #: Called with each new connection, and the time limit, before anything is sent over it.
        self.on_connected: Callable[[RedisConnection, float], Awaitable[None]] | None = None
        self._connections = 0
        self._address: object = None
        self.contact = FirstContact()
        self.moves = 0  # connections to another server than the one before; readers must follow
        self._last_error = "it has not been connected yet"

    def __repr__(self) -> str:
        state = "connected" if self._connection else f"not connected: {self._last_error}"
        return f"<Pipeline {self.name}, {state}, {len(self._waiting)} waiting, {len(self._unanswered)} unanswered>"

    def statistics(self) -> PipelineStatistics:
        """An immutable snapshot."""
        return PipelineStatistics(
            self._connection is not None, len(self._waiting), len(self._unanswered), self._connections, self._outages
        )

    @property
    def state(self) -> str:
        """Whether it is connected, in words."""
        return "connected" if self._connection else self._last_error

    @property
    def _unanswered(self) -> list[Call]:
        return [] if self._batch is None else self._batch.calls

    def call(self, *arguments: Argument) -> Awaitable[Any]:
        """Run a command in Redis; returns its reply. Redis executes calls in order. Await the result at once."""
        data = encode(*arguments)
        return self._answer(Call(data, len(data), None, trio.current_time() + self._timeout))

    def call_both(self, first: tuple[Argument, ...], second: tuple[Argument, ...]) -> Awaitable[Any]:
        """As :meth:`call`, for two commands between which Redis runs no other; returns both replies."""
        data = encode(*first), encode(*second)
        return self._answer(Call(data, sum(map(len, data)), None, trio.current_time() + self._timeout))

    def call_combined(self, combine: Combine, part: Any, size: int) -> Awaitable[Any]:
        """As :meth:`call`, but `combine` makes one command of consecutive calls that wait together."""
        return self._answer(Call(part, size, combine, trio.current_time() + self._timeout))

    async def _answer(self, call: Call) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            await trio.lowlevel.checkpoint()  # for callers that try again at once
            call.set()
        self._waiting[call] = None
        self._send_batch()
        try:
            await call.wait()
        finally:
            call.abandoned = True
            self._waiting.pop(call, None)
        if call.reply is NO_ANSWER:
            when = "before the layer was closed" if self._closed else f"within {self._timeout:g} seconds"
            raise ChannelLayerUnavailable(
                f"{self.name} did not answer {when}"
                f" ({'sent, may still take effect' if call.sent else 'not sent'}); "
                f"{self.state}"
            )
        if isinstance(call.reply, ReplyError):
            raise CommandRefused(f"{self.name} refuses: {call.reply}")
        return call.reply

    async def watch_deadlines(self) -> None:
        """End the wait of callers whose deadline has passed, until cancelled; also without a connection."""
        # One task serves all callers: a cancel scope for each would add a tenth to the cost of a call.
        while True:
            now = trio.current_time()
            next_look = now + self._timeout
            for call in itertools.chain(self._unanswered, self._waiting):
                if call.deadline > now:
                    next_look = call.deadline  # those behind it have later deadlines
                    break
                if not call.abandoned:
                    call.set()
            await trio.sleep_until(next_look)

    def close(self) -> None:
        """End the wait of all callers, when :meth:`run` has ended for good."""
        self._closed = True
        for call in itertools.chain(self._unanswered, self._waiting):
            if not call.abandoned:
                call.set()

    def _send_batch(self) -> None:
        """Send the waiting calls in one write, unless a batch is under way; never waits, and never raises."""
        if self._connection is None or self._batch is not None or self._gathering or not self._waiting:
            return
        calls: list[Call] = []
        size = 0
        for call in self._waiting:
            size += call.size
            if calls and (size > BATCH_BYTES or len(calls) >= IN_FLIGHT):
                break
            calls.append(call)
        for call in calls:
            del self._waiting[call]
            call.sent = True
        self._batch = Batch(calls)
        self._sent_at = trio.current_time()
        self._rest = self._connection.send_nowait(self._batch.data)
        if self._rest:
            self._rest_ready.set()

    async def run(self) -> None:
        """Serve the calls, over one connection after the other, until cancelled."""
        while True:
            try:
                connection = await open_connection(await self._locate(), connect_timeout_for(self._timeout))
                try:
                    await _prepare(connection, self._timeout)
                    if self.on_connected is not None:
                        await self.on_connected(connection, self._timeout)
                    self.contact.made()
                    self._connections += 1
                    self.moves += self._address not in (None, connection.host.address)
                    self._address = connection.host.address
                    await self._serve(connection)
                finally:
                    self._connection = None
                    with trio.CancelScope(shield=True):
                        await connection.aclose()
            except ConnectionLost as error:
                self._last_error = str(error)
                if not self.contact.failed(error):
                    if self._outage is None:
                        self._outage = Outage(self.name)
                        self._outages += 1
                    self._outage.failed(error)
            await self._back_off.wait()

    async def _serve(self, connection: RedisConnection) -> None:
        # Unanswered calls go first, but those whose caller has given up: they may have been carried out.
        unanswered, self._batch = self._unanswered, None
        self._wait_again(unanswered)
        self._gathering, self._rest = False, b""
        self._connection = connection
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_rest, connection)
                nursery.start_soon(self._watch_silence)
                nursery.start_soon(self._watch_topology, connection)
                self._send_batch()
                await self._read(connection)
        except BaseExceptionGroup as group:
            others = group.split(ConnectionLost)[1]
            if others is not None:
                # A cancellation or a defect takes precedence over a lost connection.
                raise bare(others) from None
            raise ConnectionLost(str(next(leaves(group)))) from group

    def _wait_again(self, calls: list[Call]) -> None:
        """Put calls before all others that wait."""
        if calls:
            self._waiting = {call: None for call in calls if not call.abandoned} | self._waiting

    async def _write_rest(self, connection: RedisConnection) -> None:
        while True:
            await self._rest_ready.wait()
            data, self._rest = self._rest, b""
            await connection.send(data)

    async def _read(self, connection: RedisConnection) -> None:
        replies: list[Any] = []
        while True:
            replies += await connection.receive()
            batch = self._batch
            if batch is None or len(replies) > batch.replies:
                raise ConnectionLost(f"{connection.host} sent a reply without a command: {replies[-1]!r:.100}")
            if len(replies) == batch.replies:
                self._settle(connection, batch, replies)
                self._back_off.reset()
                if self._outage is not None:
                    self._outage.ended(connection.host)
                    self._outage = None
                replies = []
                if len(batch.calls) > 1:
                    # The callers that were answered may send more: one write for all is better than several. Two
                    # checkpoints, as Trio may schedule this task before the callers after the first.
                    self._gathering = True
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                    self._gathering = False
                self._send_batch()

    def _settle(self, connection: RedisConnection, batch: Batch, replies: list[Any]) -> None:
        """Give the calls of a batch their answers."""
        try:
            answers = batch.answers(replies)
        except ConnectionLost as error:
            raise ConnectionLost(f"{connection.host} answered: {error}") from None
        again = []
        for call, answer in zip(batch.calls, answers, strict=True):
            if answer is NOT_CARRIED_OUT:
                again.append(call)
            else:
                call.reply = answer
                call.set()
        self._batch = None
        self._wait_again(again)

    async def _watch_silence(self) -> None:
        """Give up a silent connection: a half-open one reports no error."""
        while True:
            await trio.sleep(self._timeout / 4)
            if self._batch is not None and self._sent_at < trio.current_time() - self._timeout:
                raise ConnectionLost(f"no answer for {self._timeout:g} seconds")

    async def _watch_topology(self, connection: RedisConnection) -> None:
        """End the connection when the shard has moved to another server."""
        while True:
            await trio.sleep(TOPOLOGY_INTERVAL)
            try:
                host = await self._locate()
            except ConnectionLost:
                continue  # no sentinel or node answers: the connection may still be right
            if host.address != connection.host.address:
                raise ConnectionLost(f"{connection.host} has been replaced by {host}")


async def _prepare(connection: RedisConnection, timeout: float) -> None:
    """Load the scripts, and check that transactions are allowed."""
    commands = (*(script.load for script in ALL_SCRIPTS), ("MULTI",), ("EXEC",))
    for reply in await connection.exchange(*commands, timeout=timeout):
        if isinstance(reply, ReplyError):
            raise refused(connection.host, reply, "a script or a transaction")
