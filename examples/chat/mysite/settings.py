"""Settings of the chat. What is particular to trio-channels stands first."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# -- trio-channels ----------------------------------------------------------------------------------------------------

ASGI_APPLICATION = "mysite.asgi.application"

if "CHAT_REDIS" in os.environ:
    # For several processes: serve_redis.py starts two, and a Redis.
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
            "CONFIG": {"hosts": [os.environ["CHAT_REDIS"]], "prefix": "chat"},
        }
    }
else:
    # For one process, which is what serve.py starts.
    CHANNEL_LAYERS = {"default": {"BACKEND": "trio_channels.layers.InMemoryChannelLayer"}}

# -- the chat ---------------------------------------------------------------------------------------------------------

#: Seconds between two signs of life of an open page; see chat/presence.py.
CHAT_RENEW_PRESENCE = float(os.environ.get("CHAT_RENEW_PRESENCE", "10"))

# -- Django -----------------------------------------------------------------------------------------------------------

# Defaults for trying it out. On a real site give a key of your own, and DJANGO_DEBUG=0.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only-for-development-9f1c5b7a2e")
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
# Not only for HTTP: a WebSocket from a page of any other origin is refused, see asgi.py.
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "trio_channels",  # its runserver goes before that of staticfiles
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "chat",
]

MIDDLEWARE = [
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
        # The worker threads live as long as the server, and so may their connections.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            # Several threads write: let them wait for each other, and let readers not wait at all.
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

TIME_ZONE = "UTC"  # the pages show the local time of whoever looks
STATIC_URL = "static/"
