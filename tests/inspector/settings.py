"""A site with Django's admin and the inspector: settings of processes that share a database and a Redis."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

#: Beside those of ``tests.settings``.
SITE = {
    "INSTALLED_APPS": [
        *INSTALLED_APPS,
        "trio_channels.inspector",
        "django.contrib.admin",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    "ROOT_URLCONF": "tests.inspector.urls",
    "STATIC_URL": "static/",
}
globals().update(SITE)

ASGI_APPLICATION = "tests.inspector.site.application"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
if "TESTS_REDIS" in os.environ:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["TESTS_DATABASE"],
            "OPTIONS": {"timeout": 60},
        }
    }
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
            "CONFIG": {"hosts": [os.environ["TESTS_REDIS"]], "prefix": os.environ["TESTS_PREFIX"]},
        }
    }
