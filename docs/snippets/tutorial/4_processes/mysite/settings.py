import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "only-for-this-tutorial"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "trio_channels",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "chat",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "mysite.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.contrib.auth.context_processors.auth"]},
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        # The server's threads live long, and keep their connections.
        "CONN_MAX_AGE": None,
        # Several threads write; they wait for each other.
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    }
}
STATIC_URL = "static/"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "index"

ASGI_APPLICATION = "mysite.asgi.application"
HISTORY = {"chat.*": {"messages": 200, "seconds": 3600}}
if redis := os.environ.get("REDIS_URL"):
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
            "CONFIG": {"hosts": [redis], "history": HISTORY},
        }
    }
else:  # for one process
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "trio_channels.layers.InMemoryChannelLayer",
            "CONFIG": {"history": HISTORY},
        }
    }
# A logout closes the user's WebSockets, too.
TRIO_CHANNELS = {"CLOSE_ON_LOGOUT": True}
