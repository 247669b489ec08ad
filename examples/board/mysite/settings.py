"""Settings of the board. The settings for trio-channels come first."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# -- trio-channels ----------------------------------------------------------------------------------------------------

ASGI_APPLICATION = "mysite.asgi.application"

TRIO_CHANNELS = {
    # SQLite wakes no relay of the outbox: it looks ten times a second. PostgreSQL would wake it.
    "RELAY_POLL": 0.1,
    "CLOSE_ON_LOGOUT": True,
}

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.InMemoryChannelLayer",
        "CONFIG": {
            # A page of the activity that comes back gets the changes that it has missed.
            "history": {"topic.board.*": {"messages": 200, "seconds": 3600}},
            # A page that is reloaded comes again within these seconds, and is no news to the others.
            "presence": {"grace": 2},
        },
    }
}

# -- Django -----------------------------------------------------------------------------------------------------------

# Defaults for development. In production set DJANGO_SECRET_KEY, and DJANGO_DEBUG=0.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only-for-development-4d1b7e90c6")
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
# Also for WebSockets: asgi.py refuses those from pages of other origins.
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "trio_channels",  # before staticfiles, so that its runserver is used
    "trio_channels.outbox",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "board",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "mysite.urls"

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
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("BOARD_DATABASE", BASE_DIR / "board.sqlite3"),
        # The threads live as long as the server, and so may their connections.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            # Several threads write: they wait for each other, and readers do not wait.
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "index"

TIME_ZONE = "UTC"  # the pages show the local time of their reader
USE_TZ = True
STATIC_URL = "static/"
