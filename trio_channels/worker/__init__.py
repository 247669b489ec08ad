"""Workers: run an ASGI application for the messages of named channels.

The tasks::

    worker nursery
      one task per channel       takes messages, as many as there are free handlers
        one task per message     runs the application in a `channel` scope, then settles the message
      the report                 logs a summary once a minute, if the counts have changed or handlers run

The rules:

1. The application runs once for each message, as a new instance whose ``receive`` returns the message. The message is
   handled when the application returns, or calls ``receive`` again (the application is then cancelled). If the
   application raises, the message has failed.
2. With ``ack="after-handler"`` a message is acknowledged once it is handled. A failed message is delivered again after
   a pause, to any worker. A message whose worker died is delivered again as soon as the death is noticed. After
   ``max_deliveries`` the message becomes a dead letter. A message may be handled twice, and is never lost.
3. With ``ack="on-receive"`` a message is acknowledged before the application runs. It is never handled twice, and is
   lost if it fails.
4. A failed message makes one log record, with the traceback. Other messages are not affected.
5. A draining worker takes no more messages, and lets the running handlers finish within ``grace`` seconds. After that
   they are cancelled; their messages go to other workers, and the delivery does not count.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import trio

from .. import _conf
from .._asgi.protocol import ASGIApplication
from .._concurrency.exception_groups import bare, split_cancelled
from .._limits import COUNT, SECONDS, SECONDS_OR_ZERO, Rule, one_of
from ..layers.base import ChannelLayer
from ..layers.work import CLAIM_AFTER, MAX_DELIVERIES
from ..routing import check_channel_routes
from .channel import Acknowledge, ChannelStatistics, WorkerChannel, WorkRules

__all__ = ["Acknowledge", "ChannelStatistics", "Worker", "WorkerStatistics"]

logger = logging.getLogger("trio_channels.worker")

#: Handlers of one channel that run at a time: as many as there are worker threads by default.
CONCURRENCY = 10
#: Seconds between two summaries in the log.
REPORT_INTERVAL = 60.0


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A snapshot of a worker: whether it is draining, and each of its channels."""

    draining: bool
    channels: dict[str, ChannelStatistics]


#: The workers of this process that run.
_running: set[Worker] = set()


def running_workers() -> list[Worker]:
    """The workers of this process that run now."""
    return list(_running)


class Worker:
    """Runs an application for the messages of named channels, several at a time.

    Args:
        application: the ASGI application, called with scopes ``{"type": "channel", "channel": name}``.
        channels: the names of the channels.
        channel_layer: must be open in this Trio run while the worker runs.
        concurrency: the number of handlers of each channel that run at a time. 1 keeps the order of messages, with a
            single worker and without failures.
        ack: when a message is acknowledged: ``after-handler`` or ``on-receive``; see the rules of the module.
        max_deliveries: deliveries after which a failed message becomes a dead letter.
        claim_after: seconds of silence after which a worker counts as dead, and its messages go to others.
        grace: seconds that running handlers have to finish when the worker drains; None: ``SHUTDOWN_GRACE``.

    A worker can run once.

    Raises:
        ConfigurationError: an argument is out of range, or the application has no route for ``channel``.
        InvalidChannelLayerError: the layer has no named channels for workers.
        InvalidNameError: a channel name breaks the rules.
        NoRouteFound: the application's ChannelNameRouter does not know a channel.
    """

    def __init__(
        self,
        application: ASGIApplication,
        channels: Iterable[str],
        channel_layer: ChannelLayer,
        *,
        concurrency: int = CONCURRENCY,
        ack: Acknowledge = "after-handler",
        max_deliveries: int = MAX_DELIVERIES,
        claim_after: float = CLAIM_AFTER,
        grace: float | None = None,
    ) -> None:
        names = [channels] if isinstance(channels, str) else list(dict.fromkeys(channels))
        Rule("the names of one channel or more", bool).require("channels of a worker", names)
        COUNT.require("concurrency of a worker", concurrency)
        one_of(get_args(Acknowledge)).require("ack of a worker", ack)
        COUNT.require("max_deliveries of a worker", max_deliveries)
        SECONDS.require("claim_after of a worker", claim_after)
        if grace is not None:
            SECONDS_OR_ZERO.require("grace of a worker", grace)
        queues = {name: channel_layer.work_queue(name) for name in names}
        check_channel_routes(application, names)
        self.grace: float = _conf.get("SHUTDOWN_GRACE") if grace is None else grace
        self.layer = channel_layer
        self._rules = WorkRules(concurrency, ack, max_deliveries, claim_after, self.grace)
        self._channels = {name: WorkerChannel(application, name, queue, self._rules) for name, queue in queues.items()}
        self._draining = False

    def __repr__(self) -> str:
        seen = self.statistics()
        state = "draining" if seen.draining else "working"
        counts = (f"{name}: {each.running} running, {each.handled} handled" for name, each in seen.channels.items())
        return f"<Worker {state}, {'; '.join(counts)}>"

    def statistics(self) -> WorkerStatistics:
        """An immutable snapshot."""
        return WorkerStatistics(
            self._draining, {name: channel.statistics() for name, channel in self._channels.items()}
        )

    def drain(self) -> None:
        """Take no more messages; :meth:`run` returns when the running handlers have finished. Idempotent."""
        if not self._draining:
            self._draining = True
            running = sum(channel.running for channel in self._channels.values())
            if running:
                logger.info("draining: %d handlers may finish within %g seconds", running, self.grace)
            for channel in self._channels.values():
                channel.drain()

    async def run(self) -> None:
        """Work until drained.

        Raises:
            ChannelLayerUnavailable: the layer is not open. After the start the worker waits for the end of an outage.

        Cancellation: the handlers are cancelled; their messages, and messages on their way, go to other workers. A
        message whose handler has finished is acknowledged first.
        """
        logger.info(
            "working on %s: %d handlers each, acknowledged %s, through %r",
            ", ".join(self._channels),
            self._rules.concurrency,
            self._rules.ack,
            self.layer,
        )
        _running.add(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report)
                async with trio.open_nursery() as channels:
                    for channel in self._channels.values():
                        channels.start_soon(channel.serve, name=f"channel {channel.name}")
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            _, failure = split_cancelled(group)
            if failure is None or isinstance(failure := bare(failure), BaseExceptionGroup):
                raise
            raise failure from failure.__cause__
        finally:
            _running.discard(self)
        logger.info("stopped: %s", self._summary())

    async def _report(self) -> None:
        before = self._summary()
        while True:
            await trio.sleep(REPORT_INTERVAL)
            summary = self._summary()
            if summary != before or any(channel.running for channel in self._channels.values()):
                oldest = max(channel.statistics().oldest for channel in self._channels.values())
                logger.info("%s%s", summary, f"; the oldest handler runs for {oldest:.0f} s" if oldest else "")
            before = summary

    def _summary(self) -> str:
        return "; ".join(channel.summary() for channel in self._channels.values())
