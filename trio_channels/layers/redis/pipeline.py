"""The command pipeline: every command of a shard over one connection, strictly in order, as many in one write as wait.

The rules:

- One batch is under way at a time: everything that waited when the answers to the last one had come, in one write.
- What was sent and not answered when the connection broke is sent again, in order, on the next one. The scripts know
  by a number that they have been carried out before.
- A caller waits at most ``timeout`` seconds, no longer than the layer is open, and can be cancelled. Nothing of that
  touches the connection: a command that was sent keeps its place, and its answer is dropped; one that was not sent yet
  is withdrawn.
- A reply that says "not here, not now" (a moved slot, a replica, a server that is loading) breaks the connection, so
  that the next one is opened where the topology says.
- The topology is asked now and then, too: a primary that was cut off and replaced goes on to answer as if nothing were.
"""

from __future__ import annotations

import itertools
import logging
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
    encode,
    open_connection,
    patience_for,
)
from .delivery import WIDTH
from .hosts import Host
from .scripts import ALL_SCRIPTS

logger = logging.getLogger("trio_channels.layers.redis")

#: Seconds between two looks at where the shard is.
LOOK_INTERVAL = 4.0
#: Commands in one batch. All of them may be sent again, and receivers know as many tokens of one sender.
IN_FLIGHT = WIDTH
#: Bytes in one batch, unless a single command has more: Redis does nothing else while it carries one out.
BATCH_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class PipelineStatistics:
    """A snapshot of a pipeline.

    Args:
        connected: whether it has a connection.
        waiting: calls that wait to be sent.
        unanswered: calls that wait for their replies.
        connections: connections opened so far.
    """

    connected: bool
    waiting: int
    unanswered: int
    connections: int


class Pipeline:
    """Ordered, pipelined commands to wherever `locate` says the shard is.

    Args:
        name: for log lines.
        locate: says where to connect to, anew each time.
        timeout: seconds that a caller waits, and after which a silent connection is given up.

    Attributes:
        moves: how often it has gone on at another server than before. Who reads there has to come, too.
    """

    def __init__(self, name: str, locate: Callable[[], Awaitable[Host]], timeout: float) -> None:
        self.name = name
        self._locate = locate
        self._timeout = timeout
        self._waiting: dict[Call, None] = {}
        self._batch: Batch | None = None  # sent, and not answered yet
        self._sent_at = math.inf
        self._connection: RedisConnection | None = None
        self._gathering = False
        self._rest = b""  # what the connection would not take at once
        self._rest_ready = Wakeup()
        self._back_off = BackOff()
        self._in_outage = False
        self._closed = False
        self._connections = 0
        self._address: object = None
        self.moves = 0
        self._last_error = "it has not been connected yet"

    def __repr__(self) -> str:
        state = "connected" if self._connection else f"not connected: {self._last_error}"
        return f"<Pipeline {self.name}, {state}, {len(self._waiting)} waiting, {len(self._unanswered)} unanswered>"

    def statistics(self) -> PipelineStatistics:
        """An immutable snapshot."""
        return PipelineStatistics(
            self._connection is not None, len(self._waiting), len(self._unanswered), self._connections
        )

    @property
    def _unanswered(self) -> list[Call]:
        return [] if self._batch is None else self._batch.calls

    # -- the callers' side ----------------------------------------------------------------------------------------

    def call(self, *arguments: Argument) -> Awaitable[Any]:
        """Have Redis run a command; returns its reply. Calls are carried out in the order in which they are made.

        To be awaited at once.

        Raises:
            ChannelLayerUnavailable: there was no answer in time. A command that had been sent may yet take effect.
            CommandRefused: Redis refused the command.

        Cancellation: as after a time-out.
        """
        data = encode(*arguments)
        return self._answer(Call(data, len(data), None, trio.current_time() + self._timeout))

    def call_combined(self, combine: Combine, part: Any, size: int) -> Awaitable[Any]:
        """As :meth:`call`, for commands that can be one: calls that follow each other are, if they wait together.

        Args:
            combine: makes a command of parts; the same object for all that can be combined.
            part: this call's.
            size: bytes that it takes on the way, about.
        """
        return self._answer(Call(part, size, combine, trio.current_time() + self._timeout))

    async def _answer(self, call: Call) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            await trio.lowlevel.checkpoint()  # for those who would try again at once
            call.set()
        self._waiting[call] = None
        self._send_batch()
        try:
            await call.wait()
        finally:
            call.abandoned = True
            self._waiting.pop(call, None)
        if call.reply is NO_ANSWER:
            raise ChannelLayerUnavailable(
                f"{self.name} did not answer {self._until_when()}"
                f" ({'sent, it may yet take effect' if call.sent else 'not sent'}); "
                f"{'connected' if self._connection else self._last_error}"
            )
        if isinstance(call.reply, ReplyError):
            raise CommandRefused(f"{self.name} refuses: {call.reply}")
        return call.reply

    async def watch_callers(self) -> None:
        """Tell those who have waited too long, until cancelled; also while nothing is connected.

        One task for all: a cancel scope for each would be a tenth of what a call costs.
        """
        while True:
            now = trio.current_time()
            next_look = now + self._timeout
            for call in itertools.chain(self._unanswered, self._waiting):
                if call.deadline > now:
                    next_look = call.deadline  # those behind it have begun later
                    break
                if not call.abandoned:
                    call.set()
            await trio.sleep_until(next_look)

    def close(self) -> None:
        """Tell everybody that no answer will come any more; to be called when :meth:`run` has ended for good."""
        self._closed = True
        for call in itertools.chain(self._unanswered, self._waiting):
            if not call.abandoned:
                call.set()

    def _until_when(self) -> str:
        return "before the layer was closed" if self._closed else f"within {self._timeout:g} seconds"

    def _send_batch(self) -> None:
        """Send what waits, in one write, unless a batch is under way; never waits, and never raises."""
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

    # -- the connection's side ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a connection, and serve the calls, until cancelled."""
        while True:
            try:
                connection = await open_connection(await self._locate(), patience_for(self._timeout))
                try:
                    await _prepare(connection, self._timeout)
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
                if not self._in_outage:
                    self._in_outage = True
                    logger.warning("%s is not available: %s. Trying again until it is.", self.name, error)
            await self._back_off.wait()

    def _answered(self, connection: RedisConnection) -> None:
        self._back_off.reset()
        if self._in_outage:
            self._in_outage = False
            logger.info("%s is available again, at %s", self.name, connection.host)

    async def _serve(self, connection: RedisConnection) -> None:
        # What was not answered goes first. For what was abandoned nobody waits any more; it may have been carried out.
        unanswered, self._batch = self._unanswered, None
        self._wait_again(unanswered)
        self._gathering, self._rest = False, b""
        self._connection = connection
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_rest, connection)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._watch_place, connection)
                self._send_batch()
                await self._read(connection)
        except BaseExceptionGroup as group:
            others = group.split(ConnectionLost)[1]
            if others is not None:
                # A cancellation, or a defect: either is more than a lost pipeline.
                raise bare(others) from None
            raise ConnectionLost(str(next(leaves(group)))) from group

    def _wait_again(self, calls: list[Call]) -> None:
        """Have calls wait again, before all others."""
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
                raise ConnectionLost(f"{connection.host} sent what nobody had asked for: {replies[-1]!r:.100}")
            if len(replies) == batch.replies:
                self._settle(connection, batch, replies)
                self._answered(connection)
                replies = []
                if len(batch.calls) > 1:
                    # Who has been answered may have more to send: a write of all that is better than two. Twice, as
                    # this task may come before them the first time.
                    self._gathering = True
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                    self._gathering = False
                self._send_batch()

    def _settle(self, connection: RedisConnection, batch: Batch, replies: list[Any]) -> None:
        """Give a batch its answers."""
        try:
            answers = batch.answers(replies)
        except ConnectionLost as error:
            raise ConnectionLost(f"{connection.host} says: {error}") from None
        again = []
        for call, answer in zip(batch.calls, answers, strict=True):
            if answer is NOT_CARRIED_OUT:
                again.append(call)
            else:
                call.reply = answer
                call.set()
        self._batch = None
        self._wait_again(again)

    async def _watch(self) -> None:
        """Give up a connection that has gone silent: it may be half open, and would never say so."""
        while True:
            await trio.sleep(self._timeout / 4)
            if self._batch is not None and self._sent_at < trio.current_time() - self._timeout:
                raise ConnectionLost(f"no answer for {self._timeout:g} seconds")

    async def _watch_place(self, connection: RedisConnection) -> None:
        """Leave a server that is not the shard's any more."""
        while True:
            await trio.sleep(LOOK_INTERVAL)
            try:
                host = await self._locate()
            except ConnectionLost:
                continue  # who could say so is not there, which is no reason to leave
            if host.address != connection.host.address:
                raise ConnectionLost(f"{connection.host} has been replaced by {host}")


async def _prepare(connection: RedisConnection, patience: float) -> None:
    """Load the scripts, and make sure that transactions are allowed."""
    commands = (*(script.load for script in ALL_SCRIPTS), ("MULTI",), ("EXEC",))
    for reply in await connection.exchange(*commands, patience=patience):
        if isinstance(reply, ReplyError):
            raise ConnectionLost(f"{connection.host} refused a script or a transaction: {reply}")
