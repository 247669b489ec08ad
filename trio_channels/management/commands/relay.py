"""``manage.py relay``: send the messages of the outbox until a signal; or show its state, or try messages again."""

from __future__ import annotations

import argparse
import logging
import signal
from typing import Any

import trio
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from ..._concurrency.exception_groups import bare
from ..._concurrency.watchdog import Watchdog
from ...exceptions import TrioChannelsError
from ...layers import InMemoryChannelLayer, channel_layers
from ...layers.lifespan import open_layers
from ...outbox.writing import require_app
from ...server.lifespan import CANNOT_START
from .._logging import log_to_stderr

logger = logging.getLogger("trio_channels.outbox")

#: Seconds after the signal in which the process must end: a query, and the layers' farewell.
FAREWELL = 30.0


class Command(BaseCommand):
    """Runs a relay of the outbox."""

    help = (
        "Sends the messages that transactions have written into the outbox, until SIGTERM or Ctrl-C. Any number of "
        "relays may run at a time."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--database",
            default=DEFAULT_DB_ALIAS,
            metavar="ALIAS",
            help=f"the alias of the database in DATABASES ({DEFAULT_DB_ALIAS!r})",
        )
        action = parser.add_mutually_exclusive_group()
        action.add_argument("--status", action="store_true", help="print the state of the outbox")
        action.add_argument(
            "--retry",
            nargs="*",
            type=int,
            metavar="ID",
            help="have these messages tried again that were set aside; all of them if there is no ID",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the command."""
        database = options["database"]
        try:
            require_app()
            if database not in connections.settings:
                raise CommandError(f"DATABASES has no entry {database!r}", returncode=CANNOT_START)
            if options["status"]:
                self._print_status(database)
            elif options["retry"] is not None:
                self._retry(database, options["retry"])
            else:
                log_to_stderr(options["verbosity"])
                _relay(database)
        except TrioChannelsError as error:
            raise CommandError(str(error), returncode=CANNOT_START) from error

    def _print_status(self, database: str) -> None:
        from ...outbox import status  # its models need the app

        seen = status(database)
        oldest = "" if seen.oldest is None else f", the oldest for {seen.oldest:.1f} seconds"
        self.stdout.write(f"{database}: {seen.pending} pending{oldest}; {seen.set_aside} set aside")
        self._print_set_aside(database)

    def _print_set_aside(self, database: str) -> None:
        from ...outbox.models import OutboxMessage  # its models need the app

        rows = OutboxMessage.objects.using(database).filter(set_aside_at__isnull=False)
        for row in rows.order_by("id").defer("message")[:100]:
            self.stdout.write(f"{row.pk}  to {row.group}, {row.attempts} attempts: {row.error}")

    def _retry(self, database: str, ids: list[int]) -> None:
        from ...outbox import retry  # its models need the app

        self.stdout.write(f"{database}: {retry(*ids, using=database)} to be tried again")


def _relay(database: str) -> None:
    in_memory = [alias for alias in channel_layers.configs if isinstance(channel_layers[alias], InMemoryChannelLayer)]
    if len(in_memory) == len(channel_layers.configs):
        raise CommandError(
            "expected a channel layer that connects processes; CHANNEL_LAYERS has in-memory layers only, which reach "
            "nobody from here. Use trio_channels.layers.redis.RedisStreamsChannelLayer, or relay inside the server: "
            "trio_channels.outbox.relay()",
            returncode=CANNOT_START,
        )
    with Watchdog(logger) as watchdog:
        try:
            trio.run(_relay_until_told, database, in_memory, watchdog)
        except Exception as error:
            raise bare(error) from None


async def _relay_until_told(database: str, in_memory: list[str], watchdog: Watchdog) -> None:
    from ...outbox import Relay  # its models need the app

    relay = Relay(database, not_layers=in_memory)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery, open_layers():
            nursery.start_soon(relay.run)
            received = signal.Signals(await anext(signals))
            logger.info("%s: the relay ends", received.name)
            watchdog.within(FAREWELL, 1)
            nursery.cancel_scope.cancel()
