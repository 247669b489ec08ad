"""Requests that no page makes."""

from __future__ import annotations

from typing import Any

import pytest

from .common import BOTH, kept, visit


@pytest.mark.parametrize("serve", BOTH)
async def test_too_many_parameters_are_a_bad_request(serve: Any) -> None:
    with serve(channel_layer=kept(), groups=["news"]) as application:
        async with visit(application, "?" + "a=1&" * 2000) as client:
            assert (await client.get_response())["status"] == 400
