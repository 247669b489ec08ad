"""Settings of the processes that serve ``site``."""

import os

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.metrics.site"

if "TESTS_REDIS" in os.environ:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
            "CONFIG": {"hosts": [os.environ["TESTS_REDIS"]], "prefix": os.environ["TESTS_PREFIX"]},
        }
    }
