"""``manage.py runworker CHANNEL``: handle the messages of named channels until a signal."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, get_args

import trio
from django.core.management.base import BaseCommand, CommandError, SystemCheckError

from ..._concurrency.watchdog import Watchdog
from ...closing import orders
from ...exceptions import TrioChannelsError
from ...layers.work import CLAIM_AFTER, MAX_DELIVERIES
from ...lifespan import open_layers
from ...routing import get_default_application
from ...server.lifespan import CANNOT_START, CRASHED
from ...worker import CONCURRENCY, Acknowledge, Worker
from .._channels import add_layer_argument, shared_layer
from .._logging import log_to_stderr

logger = logging.getLogger("trio_channels.worker")

#: Seconds until the process ends by force: after the second signal, and after the handlers are cancelled. A process
#: that is still there has a hanging thread.
AT_ONCE, FAREWELL = 1.0, 12.0


class Command(BaseCommand):
    """Runs a worker."""

    help = (
        "Runs ASGI_APPLICATION for each message of named channels, with a 'channel' scope. SIGTERM or Ctrl-C lets the "
        "running handlers finish, and the exit code is 0. A second one ends the worker at once."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("channels", nargs="+", metavar="CHANNEL", help="the names of the channels")
        add_layer_argument(parser)
        parser.add_argument(
            "--concurrency",
            type=int,
            default=CONCURRENCY,
            metavar="N",
            help=f"the number of handlers of each channel that run at a time ({CONCURRENCY})",
        )
        parser.add_argument(
            "--ack",
            choices=get_args(Acknowledge),
            default="after-handler",
            help="when to acknowledge a message: after-handler, so that no message is lost, or on-receive, so that no "
            "message is handled twice (after-handler)",
        )
        parser.add_argument(
            "--max-deliveries",
            type=int,
            default=MAX_DELIVERIES,
            metavar="N",
            help=f"the deliveries after which a message becomes a dead letter ({MAX_DELIVERIES})",
        )
        parser.add_argument(
            "--claim-after",
            type=float,
            default=CLAIM_AFTER,
            metavar="SECONDS",
            help=f"the seconds of silence after which a worker counts as dead ({CLAIM_AFTER:g}); give all workers of a "
            f"channel the same",
        )

    def check(self, *args: Any, **options: Any) -> None:
        """Run the system checks; what they refuse will not work at the next start either."""
        try:
            super().check(*args, **options)
        except SystemCheckError as error:
            error.returncode = CANNOT_START
            raise

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the worker."""
        log_to_stderr(options["verbosity"])
        layer = shared_layer(options["layer"])
        try:
            worker = Worker(
                get_default_application(),
                options["channels"],
                layer,
                concurrency=options["concurrency"],
                ack=options["ack"],
                max_deliveries=options["max_deliveries"],
                claim_after=options["claim_after"],
            )
        except TrioChannelsError as error:
            raise CommandError(str(error), returncode=CANNOT_START) from error
        with Watchdog(logger) as watchdog:
            ends = _Ends(watchdog)
            try:
                trio.run(_work_until_told, worker, ends)
            except TrioChannelsError as error:
                code = CRASHED if ends.started else CANNOT_START
                raise CommandError(str(error), returncode=code) from error
        if ends.code:
            sys.exit(ends.code)


@dataclass
class _Ends:
    """The end of the process: by force, or with this exit code."""

    watchdog: Watchdog
    code: int = 0
    started: bool = False  # whether the layers have been opened


async def _work_until_told(worker: Worker, ends: _Ends) -> None:
    """Run a worker until a signal, or its failure."""
    failure: Exception | None = None
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_handle_signals, signals, worker, nursery.cancel_scope, ends)
            try:
                async with open_layers(), orders("worker"):
                    ends.started = True
                    await worker.run()
            except Exception as error:
                failure = error  # raised below, outside the nursery, which would wrap it in a group
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _handle_signals(signals: AsyncIterator[int], worker: Worker, run: trio.CancelScope, ends: _Ends) -> None:
    first = signal.Signals(await anext(signals))
    logger.info("%s: draining, no more messages are taken; a second signal ends at once; %r", first.name, worker)
    worker.drain()
    ends.watchdog.within(worker.grace + FAREWELL, 1)
    second = signal.Signals(await anext(signals))
    logger.warning("%s again: ending at once; %r", second.name, worker)
    ends.code = 128 + second
    ends.watchdog.within(AT_ONCE, ends.code)
    run.cancel()
