"""The settings of ``topics_site``."""

SECRET_KEY = "of no worth"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["trio_channels"]
#: Longer than Chromium on a busy machine needs between two polls.
TRIO_CHANNELS = {"LONG_POLL_TIMEOUT": 6.0}
