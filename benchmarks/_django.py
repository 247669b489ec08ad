"""The Django project that both sides run in: the same settings, but for the channel layer's class."""

from __future__ import annotations

OURS = "trio_channels.layers.InMemoryChannelLayer"
CHANNELS = "channels.layers.InMemoryChannelLayer"


def set_up(channel_layer: str) -> None:
    """Configure Django with a database, which nothing connects to, and a channel layer with its defaults."""
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CHANNEL_LAYERS={"default": {"BACKEND": channel_layer}},
    )
    django.setup()
