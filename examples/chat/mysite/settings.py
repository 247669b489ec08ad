"""Settings of the chat. The settings for trio-channels come first."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# -- trio-channels ----------------------------------------------------------------------------------------------------

ASGI_APPLICATION = "mysite.asgi.application"

#: A page that is reloaded comes again within these seconds, and is no news to the others.
PRESENCE = {"grace": 2}
#: A page that was away for less gets what it has missed from the channel layer; after more it reads the database.
HISTORY = {"topic.room.*": {"messages": 200, "seconds": 3600}}
#: The open rooms of a page, and the list of all rooms.
TOPICS_PER_SOCKET = 40

if "CHAT_REDIS" in os.environ:
    # For several processes: serve_redis.py starts two, and a Redis.
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
            "CONFIG": {"hosts": [os.environ["CHAT_REDIS"]], "prefix": "chat", "presence": PRESENCE, "history": HISTORY},
        }
    }
else:
    # For one process: serve.py starts one.
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "trio_channels.layers.InMemoryChannelLayer",
            "CONFIG": {"presence": PRESENCE, "history": HISTORY},
        }
    }

# -- Django -----------------------------------------------------------------------------------------------------------

# Defaults for development. In production set DJANGO_SECRET_KEY, and DJANGO_DEBUG=0.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only-for-development-9f1c5b7a2e")
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
# Also for WebSockets: asgi.py refuses those from pages of other origins.
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "trio_channels",  # before staticfiles, so that its runserver is used
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "chat",
]

MIDDLEWARE = [
    "chat.middleware.content_security_policy",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
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
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CHAT_DATABASE", BASE_DIR / "chat.sqlite3"),
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

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "index"

TIME_ZONE = "UTC"  # the pages show the local time of their reader
STATIC_URL = "static/"
