"""Settings of the gallery. The settings for trio-channels come first."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# -- trio-channels ----------------------------------------------------------------------------------------------------

ASGI_APPLICATION = "mysite.asgi.application"

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {
            "hosts": [os.environ.get("GALLERY_REDIS", "redis://localhost:6379")],
            # Work may wait longer than news: for an hour without a worker, and up to 1,000 pictures.
            "expiry": 3600,
            "channel_capacity": {"thumbnails": 1000},
        },
    }
}

# -- the gallery ------------------------------------------------------------------------------------------------------

#: Deliveries after which the worker gives a picture up; serve.py tells the worker.
GALLERY_MAX_DELIVERIES = 4

# -- Django -----------------------------------------------------------------------------------------------------------

# Defaults for development. In production set DJANGO_SECRET_KEY, and DJANGO_DEBUG=0.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only-for-development-71c0a4e85b")
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

# "trio_channels" has the commands runworker and runserver. It comes before staticfiles, so that its runserver is used.
INSTALLED_APPS = ["trio_channels", "django.contrib.staticfiles", "gallery"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "mysite.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

DATA_DIR = Path(os.environ.get("GALLERY_DATA", BASE_DIR))
MEDIA_ROOT = DATA_DIR / "media"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "gallery.sqlite3",
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            # The server and the worker write: they wait for each other.
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
STATIC_URL = "static/"
