"""The Django application."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    """The chat."""

    name = "chat"
