"""The Django application."""

from django.apps import AppConfig


class BoardConfig(AppConfig):
    """The board."""

    name = "board"

    def ready(self) -> None:
        from . import rights

        rights.watch()
