"""The smallest Django project that the whole suite can run in."""

import os
import tempfile
from pathlib import Path

SECRET_KEY = "only for tests: nothing that this key signs is of any worth"
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
USE_TZ = True

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "trio_channels",
    "trio_channels.outbox",
]

# A file: threads do not share a database in memory. One per process: several test runs may go on at a time.
_DATABASE = str(Path(tempfile.gettempdir()) / f"trio-channels-tests-{os.getpid()}.sqlite3")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _DATABASE,
        "TEST": {"NAME": _DATABASE},
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Quick to compute: no test is about how strong a password hash is.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.InMemoryChannelLayer",
        "TEST_CONFIG": {"capacity": 5},
    },
}
