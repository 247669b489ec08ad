"""The WebSocket close codes of RFC 6455, 7.4.1, and of its registry, https://www.iana.org/assignments/websocket/."""

from __future__ import annotations

NORMAL = 1000
UNSUPPORTED_DATA = 1003
#: Never sent: the close frame held no code.
NO_STATUS = 1005
#: Never sent: the connection ended without a close frame.
ABNORMAL = 1006
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

_LOWEST, _HIGHEST = 1000, 4999  # RFC 6455, 7.4.2
#: Codes that are reserved, or that only the receiving side makes up.
_NEVER_SENT = (1004, NO_STATUS, ABNORMAL, 1015)


def may_be_sent(code: object) -> bool:
    """Whether a close frame may hold this code."""
    return (
        isinstance(code, int) and not isinstance(code, bool) and _LOWEST <= code <= _HIGHEST and code not in _NEVER_SENT
    )
