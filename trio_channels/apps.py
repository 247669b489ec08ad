"""The Django application, for ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig

from . import _conf, bridge


class TrioChannelsConfig(AppConfig):
    """Makes trio-channels an application of a Django project."""

    name = "trio_channels"
    verbose_name = "trio-channels"

    def ready(self) -> None:
        """Install the asgiref bridge, unless the settings say otherwise."""
        if _conf.get("ASGIREF_BRIDGE"):
            bridge.install()
