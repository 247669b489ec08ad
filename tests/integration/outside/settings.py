"""Settings of the processes that these tests start."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

SILENCED_SYSTEM_CHECKS = ["trio_channels.W001"]  # no ASGI application: these sites do not receive
INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.outside"]
ROOT_URLCONF = "tests.integration.outside.wsgi"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {"hosts": [os.environ["TEST_REDIS"]], "prefix": os.environ["TEST_PREFIX"], "capacity": 10_000},
    }
}
