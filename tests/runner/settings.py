"""Settings of the processes that ``application`` runs in."""

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.runner.application"
