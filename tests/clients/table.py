"""The table of the clients' cases; see README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("cases.json")

CASES: dict[str, dict[str, Any]] = json.loads(PATH.read_bytes())["cases"]


def cases_for(*has: str) -> dict[str, dict[str, Any]]:
    """The cases of a client that has all that every client has, and this: ``positions``, ``final codes``."""
    return {name: case for name, case in CASES.items() if case.get("needs") in (None, *has)}
