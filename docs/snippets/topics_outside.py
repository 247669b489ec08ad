from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.http import HttpRequest, HttpResponse
from trio_channels.sync import async_to_sync
from trio_channels.topics import broadcast


def say(room: str, text: str) -> None:
    """From any synchronous code."""
    async_to_sync(broadcast)(f"room:{room}", "message.new", {"text": text})


def publish(request: HttpRequest) -> HttpResponse:
    """A plain view."""
    say("lobby", request.POST["text"])
    return HttpResponse(status=204)


class Command(BaseCommand):
    """A management command: ``python manage.py say lobby "we close at ten"``."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("room")
        parser.add_argument("text")

    def handle(self, *args: Any, **options: Any) -> None:
        say(options["room"], options["text"])
