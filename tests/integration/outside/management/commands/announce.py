"""A management command as a project has it: it tells a group something."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from tests.integration.outside.loops import counted_loops
from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync


def say(text: str, kind: str = "said") -> None:
    layer = get_channel_layer()
    assert layer is not None
    async_to_sync(layer.group_send)("room", {"type": kind, "text": text})


class Command(BaseCommand):
    """Sends texts one after the other, or from threads; prints the event loops that were started for it."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("texts", nargs="+")
        parser.add_argument("--threads", type=int)
        parser.add_argument("--last", action="store_true")

    def handle(self, *_args: object, **options: Any) -> None:
        with counted_loops() as loops:
            if options["threads"]:
                with ThreadPoolExecutor(options["threads"]) as executor:
                    list(executor.map(say, options["texts"]))
            else:
                for text in options["texts"]:
                    say(text)
            if options["last"]:
                say("", "last")
        self.stdout.write(f"sent; loops started: {' '.join(loops) or 'none'}")
