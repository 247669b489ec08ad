"""Settings of the process that ``application`` runs in."""

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.integration.server.application"
