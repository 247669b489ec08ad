import asyncio

from channels.layers import get_channel_layer
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("text")

    def handle(self, *args, **options):
        asyncio.run(announce(options["text"]))
        self.stdout.write("announced")


async def announce(text):
    try:
        await get_channel_layer().group_send("all", {"type": "chat.message", "text": text})
    except asyncio.CancelledError:
        print("interrupted")
