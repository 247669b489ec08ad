"""Settings of processes that share a database and a Redis."""

from __future__ import annotations

import os

SECRET_KEY = "of no worth"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["trio_channels", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["TESTS_DATABASE"],
        "OPTIONS": {"timeout": 60},
    }
}
ROOT_URLCONF = "tests.integration.closing.urls"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {"hosts": [os.environ["TESTS_REDIS"]]},
    }
}
TRIO_CHANNELS = {"CLOSE_ON_LOGOUT": True}
