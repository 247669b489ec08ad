"""Settings for the tests in the source distribution of djangochannelsrestframework, which has none."""

from django.conf import settings

# The database in memory, which SQLite makes for tests, is shared by the threads of the process.
settings.configure(
    SECRET_KEY="only for tests: nothing that this key signs is of any worth",
    INSTALLED_APPS=["channels", "django.contrib.auth", "django.contrib.contenttypes", "tests"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "TEST_CONFIG": {"expiry": 60}}},
)
