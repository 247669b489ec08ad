"""The outbox: messages to groups that are sent if, and only if, the transaction that wrote them commits.

:func:`group_send`, :func:`group_broadcast` and :func:`topic_broadcast` write a row into a table of your database. A
relay sends the rows and deletes them: ``manage.py relay``, or :func:`relay` in the lifespan of your application. Put
``trio_channels.outbox`` into ``INSTALLED_APPS``, and migrate.

The rules:

- A row is deleted only after the channel layer has accepted its message, so no committed message is lost. A message may
  be sent again after a crash; it carries the row's identity, by which receivers drop the second one.
- The messages of one group are sent one after the other, in the order of the commits.
- Any number of relays may run. Each takes a part of the groups for a short time.
- A row that cannot be sent is set aside after some attempts, with its error. The later rows of its group then go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .writing import (
    agroup_broadcast,
    agroup_send,
    atopic_broadcast,
    group_broadcast,
    group_send,
    topic_broadcast,
)

if TYPE_CHECKING:
    from .relaying import Relay, RelayStatistics, relay, run_relay
    from .state import OutboxStatus, aretry, astatus, retry, status

__all__ = [
    "OutboxStatus",
    "Relay",
    "RelayStatistics",
    "agroup_broadcast",
    "agroup_send",
    "aretry",
    "astatus",
    "atopic_broadcast",
    "group_broadcast",
    "group_send",
    "relay",
    "retry",
    "run_relay",
    "status",
    "topic_broadcast",
]


def __getattr__(name: str) -> Any:
    """Import the parts that need the models when they are asked for: Django imports this package before its models."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .writing import require_app

    require_app()
    from . import relaying, state

    return getattr(relaying if hasattr(relaying, name) else state, name)
