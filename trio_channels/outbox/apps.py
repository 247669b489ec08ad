"""The Django app of the outbox, for ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig

from . import checks


class OutboxConfig(AppConfig):
    """The configuration of the Django app."""

    name = "trio_channels.outbox"
    label = "trio_channels_outbox"
    verbose_name = "trio-channels outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        checks.register()
