"""``ChannelsLiveServerTestCase`` in a Django project, by Django's own test runner: with the chat, and Chromium."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ARGUMENTS, CHROMIUM, ROOT, SERVE
from .test_chat import sync_api

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]


@pytest.mark.parametrize("database", ["", "test.sqlite3"], ids=["in memory", "a file"])
def test_browser_logs_in_chats_and_logs_out_on_a_live_server(tmp_path: Path, database: str) -> None:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "live_settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SERVE.parent), str(ROOT)]),
        "CHROMIUM": str(CHROMIUM),
        "CHROMIUM_ARGUMENTS": " ".join(ARGUMENTS),
        # Playwright runs asyncio in the test's thread, which is no reason not to use the ORM there.
        "DJANGO_ALLOW_ASYNC_UNSAFE": "true",
    }
    test_database = str(tmp_path / database) if database else None
    (tmp_path / "live_settings.py").write_text(
        f"from mysite.settings import *\nDATABASES['default']['TEST'] = {{'NAME': {test_database!r}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "tests.browser.chat_live_tests"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr
    assert "Traceback" not in done.stderr
