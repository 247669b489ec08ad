"""The project of the processes that write into an outbox and relay it: the database and the Redis of a test."""

import json
import os

from tests.settings import *  # noqa: F403

DATABASES = {"default": json.loads(os.environ["OUTBOX_DATABASE"])}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {"hosts": [os.environ["OUTBOX_REDIS"]], **json.loads(os.environ.get("OUTBOX_LAYER", "{}"))},
    }
}
ASGI_APPLICATION = "no.application"
TRIO_CHANNELS = {"RELAY_LEASE": 2.0, "RELAY_POLL": 0.1}
