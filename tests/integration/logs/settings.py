"""The settings of the processes whose log is counted; $TESTS_LOGGING names the configuration."""

import os

from .configurations import CONFIGURATIONS

SECRET_KEY = "of no worth"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["trio_channels", "django.contrib.staticfiles"]
STATIC_URL = "static/"
DATABASES: dict[str, object] = {}
ROOT_URLCONF = "tests.integration.logs.application"
ASGI_APPLICATION = "tests.integration.logs.application.application"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {"hosts": [f"unix://{os.environ['TESTS_REDIS']}"]},
    }
}
DEBUG = False

globals().update(CONFIGURATIONS[os.environ["TESTS_LOGGING"]])
