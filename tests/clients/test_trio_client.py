"""The table through ``trio_channels.client``."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from ..server.clients import OURS, serving
from .application import make_application
from .steps import Run
from .table import CASES
from .trio_client import TrioClient

LONG = ("many topics",)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=[pytest.mark.slow] * (name in LONG)) for name, case in CASES.items()]
)
async def test_case(case: dict[str, Any]) -> None:
    async with serving(OURS, make_application()) as server, trio.open_nursery() as nursery:
        client = TrioClient(nursery, f"ws://127.0.0.1:{server.port}/socket")
        await Run(client).run(case)
        nursery.cancel_scope.cancel()
