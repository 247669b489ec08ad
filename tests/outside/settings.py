"""Settings of the processes that these tests start."""

import os

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.outside.wsgi"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {"hosts": [os.environ["TEST_REDIS"]], "prefix": os.environ["TEST_PREFIX"], "capacity": 10_000},
    }
}
