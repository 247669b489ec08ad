"""``manage.py deadletters CHANNEL``: list the messages that workers gave up, requeue or discard them."""

from __future__ import annotations

import argparse
from typing import Any

import trio
from django.core.management.base import BaseCommand, CommandError

from ...exceptions import TrioChannelsError
from ...layers.base import ChannelLayer, WorkQueue
from .._channels import add_layer_argument, shared_layer


class Command(BaseCommand):
    """Lists, requeues or discards the dead letters of a named channel."""

    help = "Lists the dead letters of a named channel: messages that workers could not handle in several deliveries."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("channel", metavar="CHANNEL", help="the name of the channel")
        add_layer_argument(parser)
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="list at most N dead letters (100)")
        action = parser.add_mutually_exclusive_group()
        for name, text in (("--requeue", "send these messages again"), ("--discard", "delete these messages")):
            action.add_argument(name, nargs="*", metavar="ID", help=f"{text}; all of them if there is no ID")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the command."""
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
