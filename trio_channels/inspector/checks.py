"""The system checks of the inspector; registered with its app."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps
from django.core import checks
from django.core.checks import CheckMessage

from ..checks import TAG, listed
from ..layers import DEFAULT_CHANNEL_LAYER, channel_layers
from ..layers.presence.interface import PresenceMethods


def installed() -> Iterator[CheckMessage]:
    """E026: ``trio_channels``, which has the command, is not installed."""
    if apps.is_installed("trio_channels.inspector") and not apps.is_installed("trio_channels"):
        yield checks.Error(
            "trio_channels.inspector is in INSTALLED_APPS, and trio_channels is not.",
            hint="Add 'trio_channels' to INSTALLED_APPS.",
            id="trio_channels.E026",
        )


def layer() -> Iterator[CheckMessage]:
    """W027: a layer that does not know which processes there are."""
    if not apps.is_installed("trio_channels.inspector") or not channel_layers.configs:
        return
    alias = min(channel_layers.configs, key=lambda name: name != DEFAULT_CHANNEL_LAYER)  # as for orders
    if type(channel_layers.make_backend(alias)).presence is PresenceMethods.presence:
        yield checks.Warning(
            f"CHANNEL_LAYERS[{alias!r}] has no presence: the inspector cannot tell which processes do not answer.",
            hint="Use 'trio_channels.layers.redis.RedisStreamsChannelLayer'.",
            id="trio_channels.W027",
        )


def register() -> None:
    """Register the checks with Django; called when the app is ready. Idempotent."""
    for check in _ALWAYS:
        checks.register(check, TAG)


_ALWAYS = tuple(map(listed, (installed, layer)))
