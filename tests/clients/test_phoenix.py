"""The table through the client ``phoenix`` from npm, unmodified, in Node; see ``phoenix.mjs``."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..server.clients import OURS, serving
from .application import make_application
from .node import phoenix, run_script
from .table import CASES, cases_for

__all__ = ["phoenix"]

pytestmark = [pytest.mark.clients, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("phoenix.mjs")
#: It knows no positions, and comes back after every code.
THOSE = cases_for()


@pytest.mark.parametrize("name", THOSE)
async def test_case(name: str, phoenix: Path) -> None:
    async with serving(OURS, make_application()) as server:
        await run_script(SCRIPT, phoenix, server.port, name)


def test_few_cases_are_left_out() -> None:
    assert len(CASES) - len(THOSE) == 3
