"""A project in one file, whose channel layer $TESTS_HOST and $TESTS_CONFIG describe."""

from __future__ import annotations

import json
import os
from typing import Any

SECRET_KEY = "of no worth"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["trio_channels", "django.contrib.staticfiles"]
STATIC_URL = "static/"
DATABASES: dict[str, object] = {}
ROOT_URLCONF = "tests.integration.away.urls"
ASGI_APPLICATION = "tests.integration.away.urls.application"
CONFIG: dict[str, Any] = {"timeout": 1.0, **json.loads(os.environ["TESTS_CONFIG"])}
CHANNEL_LAYERS = {"default": {"BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer", "CONFIG": CONFIG}}
