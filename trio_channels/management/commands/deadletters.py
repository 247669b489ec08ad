"""``manage.py deadletters thumbnails``: look at the messages that workers gave up, send them again, or forget them."""

from __future__ import annotations

import argparse
from typing import Any

import trio
from django.core.management.base import BaseCommand, CommandError

from ...exceptions import TrioChannelsError
from ...layers.base import ChannelLayer, WorkQueue
from .._channels import add_layer_argument, shared_layer


class Command(BaseCommand):
    """See the module."""

    help = "Lists the dead letters of a named channel: messages that were delivered in vain too often."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("channel", metavar="CHANNEL", help="the channel's name")
        add_layer_argument(parser)
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="list so many; 100 if not given")
        action = parser.add_mutually_exclusive_group()
        for name, what in (("--requeue", "send these to the channel again"), ("--discard", "forget these")):
            action.add_argument(name, nargs="*", metavar="ID", help=f"{what}; all of them where no id is given")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do what the options say."""
        layer = shared_layer(options["layer"])
        try:
            trio.run(self._run, layer, options)
        except TrioChannelsError as error:
            raise CommandError(str(error)) from error

    async def _run(self, layer: ChannelLayer, options: dict[str, Any]) -> None:
        channel = options["channel"]
        queue = layer.work_queue(channel)
        async with layer:
            if options["requeue"] is not None:
                count = await queue.requeue(*options["requeue"])
                self.stdout.write(f"{channel}: {count} sent again")
            elif options["discard"] is not None:
                count = await queue.discard(*options["discard"])
                self.stdout.write(f"{channel}: {count} forgotten")
            else:
                await self._list(channel, queue, options["limit"])

    async def _list(self, channel: str, queue: WorkQueue, limit: int) -> None:
        letters = await queue.dead_letters(limit)
        for letter in letters:
            self.stdout.write(f"{letter.id}  {letter.deliveries} deliveries  {letter.why}")
            self.stdout.write(f"    {letter.message if letter.message is not None else 'cannot be decoded'}")
        self.stdout.write(
            f"{channel}: {len(letters) or 'no'} dead letters{' or more' if len(letters) == limit else ''}"
        )
