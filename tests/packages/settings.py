"""Settings of the process that serves a package's site: common ones, and those of the test, in TESTS_SETTINGS."""

import json
import os
from pathlib import Path
from typing import Any

from django.utils.module_loading import import_string

FOLDER = Path(os.environ["TESTS_FOLDER"])


def _imported(value: dict[str, Any]) -> Any:
    """The object that ``{"import": "module.name"}`` stands for."""
    return import_string(value["import"]) if value.keys() == {"import"} else value


_given = json.loads(os.environ["TESTS_SETTINGS"], object_hook=_imported)

SECRET_KEY = "only for tests: nothing that this key signs is of any worth"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
STATIC_URL = "/static/"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
TEMPLATES = [
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
]
DATABASES = {
    "default": {
        "ENGINE": _given.pop("ENGINE", "django.db.backends.sqlite3"),
        "NAME": FOLDER / "site.sqlite3",
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}

INSTALLED_APPS = [
    "trio_channels",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *_given.pop("APPS"),
]
MIDDLEWARE = [
    *_given.pop("MIDDLEWARE_FIRST"),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    *_given.pop("MIDDLEWARE_LAST"),
]
_call = _given.pop("CALL", None)
globals().update(_given)
if _call is not None:
    _call()
