"""The board example: its own tests, and its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..process import ROOT

BOARD = ROOT / "examples" / "board"
ASSETS = [path for kind in ("static", "templates") for path in (BOARD / "board" / kind).rglob("*") if path.is_file()]


def test_its_own_tests_pass() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=BOARD, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d passed", done.stdout)


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_no_page_fetches_anything_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    # The name of SVG's vocabulary is an address that nobody fetches.
    assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert re.findall(r"<[^>]* on\w+=|javascript:", text) == []
