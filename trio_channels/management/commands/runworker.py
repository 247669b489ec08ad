"""``manage.py runworker thumbnails``: work on named channels until told to stop."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, get_args

import trio
from django.core.management.base import BaseCommand, CommandError

from ..._concurrency.watchdog import Watchdog
from ...exceptions import TrioChannelsError
from ...layers.lifespan import open_layers
from ...layers.work import CLAIM_AFTER, MAX_DELIVERIES
from ...routing import get_default_application
from ...worker import CONCURRENCY, Acknowledge, Worker
from .._channels import add_layer_argument, shared_layer

logger = logging.getLogger("trio_channels.worker")

#: Seconds in which everything has ended after the second signal, and after the handlers were cancelled. What has not
#: is a thread that hangs, and the process ends with it.
AT_ONCE, FAREWELL = 1.0, 12.0

_LEVELS = {0: logging.WARNING, 1: logging.INFO}


class Command(BaseCommand):
    """See the module."""

    help = (
        "Works on named channels: runs ASGI_APPLICATION for each of their messages, with a 'channel' scope. SIGTERM or "
        "Ctrl-C lets the running handlers finish, and ends with exit code 0; the second one ends at once."
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
            help=f"handlers of each channel that run at a time; {CONCURRENCY} if not given",
        )
        parser.add_argument(
            "--ack",
            choices=get_args(Acknowledge),
            default="after-handler",
            help="when a message is acknowledged: after its handler, so that none is ever lost, or on receive, so that "
            "none is ever handled twice",
        )
        parser.add_argument(
            "--max-deliveries",
            type=int,
            default=MAX_DELIVERIES,
            metavar="N",
            help=f"after so many a message is a dead letter; {MAX_DELIVERIES} if not given",
        )
        parser.add_argument(
            "--claim-after",
            type=float,
            default=CLAIM_AFTER,
            metavar="SECONDS",
            help=f"of silence, after which a worker counts as dead; {CLAIM_AFTER:g} if not given. To be the same for "
            f"all workers of a channel",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the worker."""
        _log_to_stderr(options["verbosity"])
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
            with Watchdog(logger) as watchdog:
                ends = _Ends(watchdog)
                trio.run(_work_until_told, worker, ends)
        except TrioChannelsError as error:
            raise CommandError(str(error)) from error
        if ends.code:
            sys.exit(ends.code)


@dataclass
class _Ends:
    """How the process ends: by force, or by itself with this exit code."""

    watchdog: Watchdog
    code: int = 0


async def _work_until_told(worker: Worker, ends: _Ends) -> None:
    """Run a worker by the process' signals."""
    failure: Exception | None = None
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, worker, nursery.cancel_scope, ends)
            try:
                async with open_layers():
                    await worker.run()
            except Exception as error:
                failure = error  # as it is, and not in the nursery's group
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _obey(signals: AsyncIterator[int], worker: Worker, everything: trio.CancelScope, ends: _Ends) -> None:
    first = signal.Signals(await anext(signals))
    logger.info("%s: no more messages are taken; %r", first.name, worker)
    worker.drain()
    ends.watchdog.within(worker.grace + FAREWELL, 1)
    second = signal.Signals(await anext(signals))
    logger.warning("%s again: ending at once; %r", second.name, worker)
    ends.code = 128 + second
    ends.watchdog.within(AT_ONCE, ends.code)
    everything.cancel()


def _log_to_stderr(verbosity: int) -> None:
    """Show the worker's lines where the project has not said where they are to go."""
    if not logging.getLogger().handlers:
        level = _LEVELS.get(verbosity, logging.DEBUG)
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
