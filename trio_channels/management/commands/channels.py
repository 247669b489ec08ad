"""``manage.py channels``: the processes, connections, groups and queues of the site, as ``top`` shows processes."""

from __future__ import annotations

import argparse
import shutil
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import trio
from django.apps import apps
from django.core.management.base import BaseCommand, CommandError

from ... import _conf
from ..._limits import COUNT, SECONDS
from ..._orders import orders_layer
from ...exceptions import TrioChannelsError
from ...inspector import Overview, Question, overview
from ...inspector.queues import channels_of_application
from ...inspector.table import render
from ...layers import InMemoryChannelLayer
from ...lifespan import open_layers
from ...server.lifespan import CANNOT_START

#: Clears a terminal, and goes to its first line.
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_AWAY = "The channel layer is away: the processes cannot be asked."
#: Lines of a terminal that the rest needs, beside the connections.
_OTHER_LINES = 24


class Command(BaseCommand):
    """Shows the site's processes, and what is connected to them."""

    help = (
        "Shows the processes of the site, with their connections, groups, mailboxes and queues, and which did not "
        "answer; in a terminal again and again, until Ctrl-C."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--once", action="store_true", help="show it once; the default without a terminal")
        parser.add_argument("--json", action="store_true", help="print it once, as JSON")
        parser.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="the time between two (2)")
        parser.add_argument("--find", default="", metavar="TEXT", help="only connections with this text: see the page")
        parser.add_argument("--group", default="", metavar="GROUP", help="only members of this group")
        parser.add_argument(
            "--rows", type=int, metavar="N", help="most connections that are shown (as many as fit, or 20)"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the command."""
        if not apps.is_installed("trio_channels.inspector"):
            raise CommandError(
                "expected 'trio_channels.inspector' in INSTALLED_APPS: without it processes do not answer. Add it, "
                "migrate, and start the servers again",
                returncode=CANNOT_START,
            )
        try:
            SECONDS.require("--interval", options["interval"])
            if options["rows"] is not None:
                COUNT.require("--rows", options["rows"])
            if orders_layer() is None or isinstance(orders_layer(), InMemoryChannelLayer):
                raise CommandError(
                    "expected a channel layer that connects processes; the first of CHANNEL_LAYERS reaches this "
                    "command's own process only, which serves nothing. Use "
                    "trio_channels.layers.redis.RedisStreamsChannelLayer, or the page in the admin, which shows the "
                    "process that serves it",
                    returncode=CANNOT_START,
                )
            trio.run(self._run, options, channels_of_application())
        except TrioChannelsError as error:
            raise CommandError(str(error), returncode=CANNOT_START) from error
        except KeyboardInterrupt:
            pass  # the end of the live table

    async def _run(self, options: dict[str, Any], channels: list[str]) -> None:
        question = Question(options["find"], options["group"], _conf.get("INSPECTOR_CONNECTIONS"))
        live = self.stdout.isatty() and not (options["once"] or options["json"])
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(open_layers())
            while True:
                seen = await overview(question, channels)
                if not seen.shared:  # this command's process, which serves nothing
                    seen = msgspec.structs.replace(seen, reports=[], queues=[], problem=_AWAY)
                self._show(seen, options, live=live)
                if not live and not seen.shared:
                    raise CommandError(_AWAY)
                if not live:
                    return
                await trio.sleep(options["interval"])

    def _show(self, seen: Overview, options: dict[str, Any], *, live: bool) -> None:
        if options["json"]:
            self.stdout.write(msgspec.json.format(msgspec.json.encode(seen), indent=2).decode())
            return
        size = shutil.get_terminal_size((120, 40 if live else 20 + _OTHER_LINES))
        rows = options["rows"] or max(size.lines - _OTHER_LINES, 5)
        width = size.columns if self.stdout.isatty() else 1_000
        self.stdout.write((_CLEAR if live else "") + render(seen, rows=rows, width=width), ending="")
        self.stdout.flush()
