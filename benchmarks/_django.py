"""The Django project of both sides: the same settings, except for the class of the channel layer."""

from __future__ import annotations

OURS = "trio_channels.layers.InMemoryChannelLayer"
CHANNELS = "channels.layers.InMemoryChannelLayer"


def set_up(channel_layer: str) -> None:
    """Configure Django with a database that is not used, and a channel layer with its defaults."""
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CHANNEL_LAYERS={"default": {"BACKEND": channel_layer}},
    )
    django.setup()
