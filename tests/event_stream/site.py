"""A site of its own process: pages with EventSource and with HTMX, over a Redis that outlives the server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SECRET_KEY = "of no worth"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["trio_channels"]
ROOT_URLCONF = "tests.event_stream.pages"
MIDDLEWARE: list[str] = []
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).with_name("templates")],
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {
            "hosts": [os.environ.get("TESTS_REDIS", "redis://127.0.0.1:1")],
            "prefix": "event-stream",
            "history": {"topic.room.*": {"messages": 1000, "seconds": 3600}},
        },
    }
}
TRIO_CHANNELS = {"EVENT_STREAM_RETRY": 0.1, "SHUTDOWN_GRACE": 10}
#: The folder of htmx, if a test needs it.
SCRIPTS = os.environ.get("TESTS_SCRIPTS", "")
