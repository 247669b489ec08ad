"""Settings of the processes that ``application`` runs in."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

ROOT_URLCONF = "tests.runner.application"

if "TESTS_DATABASE" in os.environ:
    # Twenty who write at a time, on a busy machine: SQLite's own five seconds may not be enough for the last.
    DATABASES["default"].update(NAME=os.environ["TESTS_DATABASE"], OPTIONS={"timeout": 60})

TRIO_CHANNELS = {"DISCONNECT_TIMEOUT": float(os.environ.get("TESTS_DISCONNECT_TIMEOUT", "10"))}
