"""The chat example, without a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..process import ROOT

CHAT = ROOT / "examples" / "chat" / "chat"
ASSETS = [path for folder in ("static", "templates") for path in (CHAT / folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_no_page_fetches_anything_from_elsewhere(path: Path) -> None:
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w{2,}[^\s\"')]*", path.read_text())
    # The name of SVG's vocabulary is an address that nobody fetches.
    assert [address for address in addresses if address != "http://www.w3.org/2000/svg"] == []


@pytest.mark.parametrize("path", [path for path in ASSETS if path.suffix == ".html"], ids=lambda path: path.name)
def test_no_page_has_inline_scripts_or_styles(path: Path) -> None:
    page = path.read_text()
    assert re.findall(r"\s(?:on\w+|style)=|<style|javascript:", page) == []
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_there_is_no_build_step() -> None:
    assert not list(CHAT.parent.rglob("package.json"))
    assert {path.suffix for path in ASSETS} <= {".html", ".css", ".js", ".svg"}


def test_topics_and_pages_pass_their_own_tests() -> None:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "PYTHONPATH": os.pathsep.join([str(CHAT.parent), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "tests.examples.chat_site_tests"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Ran \d\d tests", done.stderr)
    assert "Traceback" not in done.stderr


def test_migrations_are_those_of_the_models() -> None:
    command = [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=CHAT.parent, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "No changes detected\n"), done.stderr
