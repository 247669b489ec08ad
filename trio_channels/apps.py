"""The Django application, for ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig


class TrioChannelsConfig(AppConfig):
    """Makes trio-channels an application of a Django project."""

    name = "trio_channels"
    verbose_name = "trio-channels"
