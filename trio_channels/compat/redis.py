"""channels_redis' layers, as the layer on Redis Streams, which asyncio code can call too."""

from __future__ import annotations

from ..layers.redis import RedisStreamsChannelLayer
from .crossing import with_both_flavours

RedisChannelLayer = with_both_flavours(RedisStreamsChannelLayer)
RedisPubSubChannelLayer = RedisChannelLayer
