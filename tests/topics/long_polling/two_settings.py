"""The settings of two server processes that share a Redis."""

import os

SECRET_KEY = "of no worth"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["trio_channels"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {"hosts": [os.environ["TESTS_REDIS"]]},
    }
}
TRIO_CHANNELS = {"LONG_POLL_WINDOW": 2.0}
