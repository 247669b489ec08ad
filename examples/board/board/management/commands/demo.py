"""``manage.py demo``: make the people and the board of the demo, unless there is a board."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from board import demo


class Command(BaseCommand):
    """Make the demo."""

    help = "Make the people and the board of the demo, unless there is a board."

    def handle(self, *_args: Any, **_options: Any) -> None:
        if not settings.DEBUG:
            self.stdout.write("DJANGO_DEBUG is 0: there is no demo, as everybody knows its passwords.")
            return
        board = demo.make()
        if board is not None:
            names = ", ".join(person.username for person in [*demo.PEOPLE, demo.STRANGER])
            self.stdout.write(f"The board “{board}” is new. Sign in as {names}; the password is {demo.PASSWORD!r}.")
