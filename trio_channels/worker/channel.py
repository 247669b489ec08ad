"""One channel of a worker: takes messages, runs the application for each one, and settles it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import trio

from .._asgi.protocol import CLIENT_EVENTS, ASGIApplication, Message
from .._concurrency.backoff import delay_after
from .._concurrency.exception_groups import split_cancelled
from .._concurrency.wakeup import Wakeup
from ..exceptions import IllegalMessage, UnhandledMessage
from ..layers.work import Delivery, WorkQueue, WorkSource

logger = logging.getLogger("trio_channels.worker")

Acknowledge = Literal["after-handler", "on-receive"]

#: Seconds before a failed message is delivered again: after the first delivery, doubled with each one, and at most.
FIRST_RETRY, LAST_RETRY = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class WorkRules:
    """The options of a worker's channels; see :class:`trio_channels.worker.Worker`."""

    concurrency: int
    ack: Acknowledge
    max_deliveries: int
    claim_after: float
    grace: float


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A snapshot of one channel of a worker.

    Args:
        running: handlers that run now.
        oldest: seconds for which the oldest handler has run; 0 if none runs.
        handled: messages that were handled and acknowledged.
        failed: deliveries that ended with an exception.
        dead: messages that became dead letters here: after their last failure, after the death of their last worker, or
            because they could not be decoded.
        taken_over: messages taken over from workers that died.
        expired: messages that waited longer than the layer's ``expiry``, and were lost.
        superseded: messages that another worker took over before they were done here.
    """

    running: int
    oldest: float
    handled: int
    failed: int
    dead: int
    taken_over: int
    expired: int
    superseded: int


class WorkerChannel:
    """One channel of a worker; can be served once.

    Args:
        application: the ASGI application that runs for each message.
        name: the channel's name.
        queue: the channel in its layer.
        rules: the worker's options.
    """

    def __init__(self, application: ASGIApplication, name: str, queue: WorkQueue, rules: WorkRules) -> None:
        self.name = name
        self._rules = rules
        self._application = application
        self._queue = queue
        self._source: WorkSource | None = None
        self._started: dict[str, float] = {}  # id of a message whose handler runs -> Trio time of its start
        self._counts: Counter[str] = Counter()
        self._handler_done = Wakeup()
        self._taking = trio.CancelScope()
        self._handling = trio.CancelScope()

    @property
    def running(self) -> int:
        """The number of handlers that run now."""
        return len(self._started)

    def statistics(self) -> ChannelStatistics:
        """An immutable snapshot."""
        settled = self._source.settled if self._source is not None else None
        now = trio.current_time()
        return ChannelStatistics(
            running=self.running,
            oldest=now - min(self._started.values(), default=now),
            handled=self._counts["handled"],
            failed=self._counts["failed"],
            dead=self._counts["buried"] + (settled.died + settled.undecodable if settled else 0),
            taken_over=self._counts["taken over"],
            expired=settled.expired if settled else 0,
            superseded=settled.superseded if settled else 0,
        )

    def summary(self) -> str:
        """One line of counts, for the log."""
        seen = self.statistics()
        parts = [f"{seen.handled} handled", f"{seen.failed} failed", f"{seen.running} running"]
        rare = {"dead": seen.dead, "taken over": seen.taken_over, "expired": seen.expired}
        parts += [f"{count} {name}" for name, count in (rare | {"superseded": seen.superseded}).items() if count]
        return f"{self.name}: {', '.join(parts)}"

    def drain(self) -> None:
        """Take no more messages, and let the running handlers finish within the grace period."""
        self._taking.cancel()
        self._handling.deadline = trio.current_time() + self._rules.grace

    async def serve(self) -> None:
        """Work until drained. Cancellation: cancels the handlers; their messages go to other workers."""
        rules = self._rules
        async with self._queue.serve(max_deliveries=rules.max_deliveries, claim_after=rules.claim_after) as source:
            self._source = source
            with self._handling:
                async with trio.open_nursery() as handlers:
                    with self._taking:
                        await self._take(source, handlers)
            if self._handling.cancelled_caught:
                logger.warning(
                    "%s: %d handlers were cancelled: they took longer than %g seconds (SHUTDOWN_GRACE) to finish. "
                    "Their messages %s",
                    self.name,
                    self._counts["cancelled"],
                    rules.grace,
                    "go to other workers" if rules.ack == "after-handler" else "are lost: acknowledged on receive",
                )

    async def _take(self, source: WorkSource, handlers: trio.Nursery) -> None:
        while True:
            free = self._rules.concurrency - self.running
            if not free:
                await self._handler_done.wait()
                continue
            for delivery in await source.take(free):
                self._started[delivery.id] = trio.current_time()
                handlers.start_soon(self._handle, source, delivery, name=f"{self.name} {delivery.id}")

    async def _handle(self, source: WorkSource, delivery: Delivery) -> None:
        finished = False
        try:
            if delivery.taken_from is not None:
                self._counts["taken over"] += 1
                logger.info("%s: taken over from %s, which is gone", self._named(delivery), delivery.taken_from)
            if self._rules.ack == "after-handler" or await source.done(delivery):
                await self._run_and_settle(source, delivery)
            finished = True
        finally:
            self._counts["cancelled"] += not finished
            self._started.pop(delivery.id, None)
            self._handler_done.set()

    async def _run_and_settle(self, source: WorkSource, delivery: Delivery) -> None:
        settles = self._rules.ack == "after-handler"
        try:
            await self._run(delivery)
        except (Exception, SystemExit) as error:  # a SystemExit that ended this worker would also end the next one
            await self._failed(source, delivery, error)
        except BaseExceptionGroup as group:
            _, failure = split_cancelled(group)
            if not isinstance(failure, ExceptionGroup):
                raise
            await self._failed(source, delivery, failure)  # a cancelled handler whose clean-up failed
        else:
            still_ours = not settles or await source.done(delivery)
            self._counts["handled"] += still_ours

    async def _failed(self, source: WorkSource, delivery: Delivery, error: BaseException) -> None:
        self._counts["failed"] += 1
        if self._rules.ack == "after-handler":
            await self._retry(source, delivery, error)
        else:
            logger.error(
                "%s failed; it is lost, as it was acknowledged on receive", self._named(delivery), exc_info=error
            )

    async def _retry(self, source: WorkSource, delivery: Delivery, error: BaseException) -> None:
        if delivery.count >= self._rules.max_deliveries:
            logger.error("%s failed; it is a dead letter now", self._named(delivery), exc_info=error)
            self._counts["buried"] += 1
            await source.bury(delivery, f"{type(error).__name__}: {error}"[:500])
        else:
            delay = min(delay_after(delivery.count, FIRST_RETRY, LAST_RETRY), self._rules.claim_after)
            logger.error("%s failed; again in %g s", self._named(delivery), delay, exc_info=error)
            await source.retry(delivery, delay)

    async def _run(self, delivery: Delivery) -> None:
        """Run the application for one message; see the first rule of the package."""
        kind = delivery.message.get("type")
        if not isinstance(kind, str) or kind in CLIENT_EVENTS:
            # A handler of the server's events would believe a forged one.
            raise UnhandledMessage(f"expected a message with a type such as 'thumbnails.make'; got {kind!r}")
        scope = {
            "type": "channel",
            "channel": self.name,
            "asgi": {"version": "3.0"},
            "delivery": {"id": delivery.id, "count": delivery.count},
        }
        given = False
        with trio.CancelScope() as instance:

            async def receive() -> Message:
                nonlocal given
                if given:
                    instance.cancel()
                    await trio.sleep_forever()
                given = True
                await trio.lowlevel.checkpoint()
                return delivery.message

            await self._application(scope, receive, self._refuse)

    async def _refuse(self, message: Any) -> None:
        kind = message.get("type") if isinstance(message, dict) else message
        raise IllegalMessage(
            f"a worker has no client to send {kind!r} to; send to a channel or group of the channel layer instead"
        )

    def _named(self, delivery: Delivery) -> str:
        kind = delivery.message.get("type")
        number = f"delivery {delivery.count} of {self._rules.max_deliveries}"
        return f"{self.name}: message {delivery.id} of type {kind!r} ({number})"
