"""WebSocket close codes."""

from __future__ import annotations

import pytest

from trio_channels._asgi import close_codes


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_code_may_be_sent(code: int) -> None:
    assert close_codes.may_be_sent(code)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000, True, 1000.0, "1000", None])
def test_code_must_not_be_sent(code: object) -> None:
    assert not close_codes.may_be_sent(code)
