"""The system checks of the outbox; registered with its app."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps
from django.core import checks
from django.core.checks import CheckMessage
from django.db import connections, router

from .. import _conf
from ..checks import TAG, listed
from ..layers import channel_layers
from ..layers.base import ChannelLayer

#: Those with which it is tested.
_VENDORS = ("postgresql", "sqlite")


def database() -> Iterator[CheckMessage]:
    """W021: the outbox is in a database with which it is not tested."""
    from .models import OutboxMessage  # Django imports this module before the models

    alias = router.db_for_write(OutboxMessage)
    if connections[alias].vendor not in _VENDORS:
        yield checks.Warning(
            f"The outbox is in the database {alias!r}; it is not tested on {connections[alias].display_name}.",
            hint="Use PostgreSQL or SQLite, and route 'trio_channels_outbox' there.",
            id="trio_channels.W021",
        )


def installed() -> Iterator[CheckMessage]:
    """E022: ``trio_channels``, whose command the relay is, is not installed."""
    if not apps.is_installed("trio_channels"):
        yield checks.Error(
            "trio_channels.outbox is in INSTALLED_APPS, and trio_channels is not.",
            hint="Add 'trio_channels' to INSTALLED_APPS.",
            id="trio_channels.E022",
        )


def layers() -> Iterator[CheckMessage]:
    """W023: a layer that does not recognise a message that is sent again."""
    for alias in channel_layers.configs:
        layer = channel_layers.make_backend(alias)
        if type(layer).group_send_once is ChannelLayer.group_send_once:
            yield checks.Warning(
                f"CHANNEL_LAYERS[{alias!r}] does not override group_send_once(): after a crash of a relay, receivers "
                f"may get a message of the outbox twice.",
                hint="Override it, or make your receivers ignore a message that they have had.",
                id="trio_channels.W023",
            )


def retention() -> Iterator[CheckMessage]:
    """W024: messages that were set aside are kept for ever."""
    if not _conf.get("RELAY_RETENTION"):
        yield checks.Warning(
            "TRIO_CHANNELS['RELAY_RETENTION'] is 0: messages that cannot be sent stay in the outbox for ever.",
            hint="Give a number of seconds, or delete them yourself.",
            id="trio_channels.W024",
        )


def register() -> None:
    """Register the checks with Django; called when the app is ready. Idempotent."""
    for check in _ALWAYS:
        checks.register(check, TAG)
    checks.register(_RETENTION, TAG, deploy=True)


_ALWAYS = tuple(map(listed, (database, installed, layers)))
_RETENTION = listed(retention)
