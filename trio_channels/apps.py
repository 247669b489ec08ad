"""The Django app for ``INSTALLED_APPS``."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps

from . import _conf, bridge, checks, compat
from .exceptions import ConfigurationError
from .log import enable_loggers
from .server.hardening import harden_hypercorn


class TrioChannelsConfig(AppConfig):
    """The configuration of the Django app."""

    name = "trio_channels"
    verbose_name = "trio-channels"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Not in ready(): the models and the URLs of other applications may import packages for Channels.
        try:
            alias = _conf.get("CHANNELS_ALIAS")
        except ConfigurationError:
            return  # reported by a system check
        if alias:
            compat.install(shadow=alias == "shadow")

    def ready(self) -> None:
        """Enable the loggers, register the system checks, install the bridge and harden hypercorn, by the settings."""
        enable_loggers()
        checks.register()
        try:
            wanted = _conf.get("ASGIREF_BRIDGE")
        except ConfigurationError:
            return  # reported by a system check, and raised by get_asgi_application()
        if wanted:
            bridge.install()
        if apps.is_installed("django.contrib.auth"):
            from .auth import ending

            ending.connect()
        harden_hypercorn()  # also with an application that is none of ours: its worker refuses Django's own handler
