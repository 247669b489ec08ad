"""The methods of consumers for presence: :mod:`trio_channels.layers.presence`."""

from __future__ import annotations

from typing import Any

from ..exceptions import ConfigurationError, InvalidChannelLayerError
from ..layers.base import ChannelLayer
from ..layers.presence import Meta, PresenceState
from ..sync import async_to_sync

HANDLER = "presence_diff"


def layer_of(consumer: Any) -> ChannelLayer:
    """The layer of a consumer that uses presence. Raises InvalidChannelLayerError if there is none."""
    layer: ChannelLayer | None = consumer.channel_layer
    if layer is None:
        raise InvalidChannelLayerError(
            f"{type(consumer).__name__} needs a channel layer for presence, but CHANNEL_LAYERS has no entry "
            f"{consumer.channel_layer_alias!r}"
        )
    return layer


def watching_layer_of(consumer: Any) -> ChannelLayer:
    """As :func:`layer_of`, of a consumer that must have a handler for the events."""
    if HANDLER not in consumer._handlers.for_layer:
        raise ConfigurationError(
            f"{type(consumer).__name__}.watch_presence() needs a handler for the changes: add a method "
            f"{HANDLER}(self, event), which is async in an async consumer"
        )
    return layer_of(consumer)


class AsyncPresence:
    """Presence in consumers with async methods."""

    channel_name: str

    async def track(self, group: str, key: str, meta: Meta | None = None) -> None:
        """Track a key in a group for this connection, or give it another meta. It ends with the connection.

        Args, Raises, Cancellation: as :meth:`ChannelLayer.track_channel`.
        """
        await layer_of(self).track_channel(group, self.channel_name, key, meta)

    async def untrack(self, group: str, key: str) -> None:
        """End a tracking before the connection ends.

        Raises, Cancellation: as :meth:`ChannelLayer.untrack_channel`.
        """
        await layer_of(self).untrack_channel(group, self.channel_name, key)

    async def watch_presence(self, group: str) -> PresenceState:
        """Get the keys that are in a group now; from here on ``presence_diff(self, event)`` gets the changes.

        Raises:
            ConfigurationError: the consumer has no handler ``presence_diff``.

        Further Raises, Cancellation: as :meth:`ChannelLayer.watch_presence`.
        """
        return await watching_layer_of(self).watch_presence(group, self.channel_name)

    async def unwatch_presence(self, group: str) -> None:
        """Get no further changes of a group.

        Raises, Cancellation: as :meth:`ChannelLayer.unwatch_presence`.
        """
        await layer_of(self).unwatch_presence(group, self.channel_name)


class SyncPresence:
    """Presence in consumers with plain methods. Call them from handlers."""

    channel_name: str

    def track(self, group: str, key: str, meta: Meta | None = None) -> None:
        """Track a key in a group for this connection, or give it another meta. It ends with the connection.

        Args and Raises: as :meth:`ChannelLayer.track_channel`.
        """
        async_to_sync(layer_of(self).track_channel)(group, self.channel_name, key, meta)

    def untrack(self, group: str, key: str) -> None:
        """End a tracking before the connection ends. Raises: as :meth:`ChannelLayer.untrack_channel`."""
        async_to_sync(layer_of(self).untrack_channel)(group, self.channel_name, key)

    def watch_presence(self, group: str) -> PresenceState:
        """Get the keys that are in a group now; from here on ``presence_diff(self, event)`` gets the changes.

        Raises:
            ConfigurationError: the consumer has no handler ``presence_diff``.

        Further Raises: as :meth:`ChannelLayer.watch_presence`.
        """
        return async_to_sync(watching_layer_of(self).watch_presence)(group, self.channel_name)

    def unwatch_presence(self, group: str) -> None:
        """Get no further changes of a group. Raises: as :meth:`ChannelLayer.unwatch_presence`."""
        async_to_sync(layer_of(self).unwatch_presence)(group, self.channel_name)
