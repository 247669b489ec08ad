"""The state of the outbox, and another try for the messages that were set aside."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import router
from django.db.models import Count, Min, Q
from django.utils import timezone

from .._threads.database import run_in_thread
from .models import OutboxMessage
from .writing import notify


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """An immutable snapshot of the outbox.

    Args:
        pending: messages that wait to be sent.
        oldest: the seconds for which the oldest of them has waited; None if there is none.
        set_aside: messages that could not be sent.
    """

    pending: int
    oldest: float | None
    set_aside: int


def status(using: str | None = None) -> OutboxStatus:
    """The state of the outbox in a database, for monitoring. Raises django.db.Error."""
    waits = Q(set_aside_at__isnull=True)
    counts = OutboxMessage.objects.using(using or router.db_for_read(OutboxMessage)).aggregate(
        pending=Count("pk", filter=waits),
        oldest=Min("created_at", filter=waits),
        set_aside=Count("pk", filter=~waits),
    )
    oldest = counts["oldest"]
    age = None if oldest is None else max(0.0, (timezone.now() - oldest).total_seconds())
    return OutboxStatus(counts["pending"], age, counts["set_aside"])


async def astatus(using: str | None = None) -> OutboxStatus:
    """As :func:`status`. Cancellation: the wait for a thread can be cancelled."""
    return await run_in_thread(status, using)


def retry(*ids: int, using: str | None = None) -> int:
    """Have relays try messages again that were set aside: those of these ids, all if there is none; their number.

    A message that is sent then comes after those of its group that have been sent meanwhile. Raises django.db.Error.
    """
    using = using or router.db_for_write(OutboxMessage)
    rows = OutboxMessage.objects.using(using).filter(set_aside_at__isnull=False)
    if ids:
        rows = rows.filter(pk__in=ids)
    count = rows.update(set_aside_at=None, retry_at=None, attempts=0, error="")
    if count:
        notify(using)
    return count


async def aretry(*ids: int, using: str | None = None) -> int:
    """As :func:`retry`. Cancellation: the wait for a thread can be cancelled."""
    return await run_in_thread(lambda: retry(*ids, using=using))
