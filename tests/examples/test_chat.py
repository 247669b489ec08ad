"""What can be said of the chat example without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHAT = Path(__file__).parents[2] / "examples" / "chat" / "chat"
ASSETS = [path for folder in ("static", "templates") for path in (CHAT / folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_no_page_fetches_anything_from_elsewhere(path: Path) -> None:
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w{2,}[^\s\"')]*", path.read_text())
    # The name of SVG's vocabulary is an address that nobody fetches.
    assert [address for address in addresses if address != "http://www.w3.org/2000/svg"] == []


def test_there_is_no_build_step() -> None:
    assert not list(CHAT.parent.rglob("package.json"))
    assert {path.suffix for path in ASSETS} <= {".html", ".css", ".js", ".svg"}
