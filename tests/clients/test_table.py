"""The table is well-formed, so that every runner can rely on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .table import CASES, cases_for

FOLDER = Path(__file__).parent
NEEDS = {"positions", "final codes"}
STEPS = set(re.findall(r"^\| `([\w.]+)` \|", (FOLDER / "README.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_case_has_known_parts(case: dict[str, Any]) -> None:
    assert set(case) <= {"sockets", "needs", "steps"}
    assert case.get("needs") in {None, *NEEDS}
    sockets = case.get("sockets", {"one": {}})
    assert all(set(options) <= {"params", "token", "heartbeat"} for options in sockets.values())
    joined = set()
    for step in case["steps"]:
        assert step["do"] in STEPS
        assert step.get("socket", "one") in sockets
        if step["do"] == "join":
            joined.add(step.get("channel", "a"))
        assert "channel" not in step or step["channel"] in joined


def test_every_step_is_used() -> None:
    assert {step["do"] for case in CASES.values() for step in case["steps"]} == STEPS


def test_client_runs_all_that_it_can() -> None:
    assert cases_for(*NEEDS) == CASES
    assert len(cases_for()) > 35
