"""The Django app of the inspector, for ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig

from . import checks


class InspectorConfig(AppConfig):
    """The configuration of the Django app."""

    name = "trio_channels.inspector"
    label = "trio_channels_inspector"
    verbose_name = "trio-channels"

    def ready(self) -> None:
        """Register the system checks, and have this process answer questions."""
        from .answering import answer_questions

        checks.register()
        answer_questions()
