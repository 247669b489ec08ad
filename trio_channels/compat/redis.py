"""channels_redis' layers, as the layer on Redis Streams, which asyncio code can call too."""

from __future__ import annotations

import trio

from ..layers.redis import RedisStreamsChannelLayer
from .crossing import with_both_flavours


@with_both_flavours
class RedisChannelLayer(RedisStreamsChannelLayer):
    """See :class:`trio_channels.layers.redis.RedisStreamsChannelLayer`."""

    async def close_pools(self) -> None:
        """Does nothing: the connections last as long as the Trio run has the layer open. Cancellation: a checkpoint."""
        await trio.lowlevel.checkpoint()


RedisPubSubChannelLayer = RedisChannelLayer
