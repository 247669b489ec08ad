"""The queries of a relay. Each runs on a thread of the pool, and is a transaction of its own.

The order of a group's messages is that of their ids, among the rows that are there. It agrees with the order of the
commits, although PostgreSQL gives an id before the commit:

- A transaction that begins to write after another one has committed gets higher ids. A query that sees its rows sees
  those of the other one too, unless these have been sent already. So they are sent in the order of the commits.
  (Its sequence must have no CACHE, which is PostgreSQL's default; otherwise each connection has ids in stock.)
- Of two transactions at the same time, the one with the lower ids may commit later. Its rows are then sent later. They
  are not skipped: a relay remembers no last id, but takes whatever rows there are, and deletes those that it has sent.

A relay may only send what it reads *after* it has the lease of the bucket. Rows read before may have been sent by
another relay since. If a lease ends early, because the relay was stopped for a while, two relays may send the same row:
both send the same rows in the same order, and receivers drop the second of each.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from datetime import timedelta

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from .models import OutboxMessage, RelayLease

#: The longest error that a row keeps, in characters.
ERROR_LENGTH = 1_000


class Store:
    """The outbox in one database, for one relay.

    Args:
        using: the alias of the database.
        lease: seconds for which this relay has a bucket.
        batch: the most rows that it takes at a time.
        not_layers: aliases of layers whose rows are left to other relays.
    """

    def __init__(self, using: str, *, lease: float, batch: int, not_layers: Collection[str] = ()) -> None:
        self.using = using
        self.holder = uuid.uuid4().hex
        self._lease = timedelta(seconds=lease)
        self._batch = batch
        self._not_layers = list(not_layers)

    def __repr__(self) -> str:
        return f"<Store of the outbox in {self.using!r}>"

    @property
    def _rows(self) -> QuerySet[OutboxMessage]:
        return OutboxMessage.objects.using(self.using)

    @property
    def _leases(self) -> QuerySet[RelayLease]:
        return RelayLease.objects.using(self.using)

    def _due(self) -> QuerySet[OutboxMessage]:
        """The rows that may be sent now, by id. While one waits for its next attempt, so does its group."""
        pending = self._rows.filter(set_aside_at__isnull=True)
        waiting = pending.filter(retry_at__gt=Now(), layer=OuterRef("layer"), group=OuterRef("group"))
        return pending.exclude(layer__in=self._not_layers).filter(~Exists(waiting)).order_by("id")

    def claim(self) -> list[OutboxMessage]:
        """Take buckets that no other relay has, and return the rows that are due in them."""
        others = self._leases.filter(until__gt=Now()).exclude(holder__in=["", self.holder])
        found = self._due().exclude(bucket__in=others.values("bucket"))
        wanted = set(found.values_list("bucket", flat=True)[: self._batch])
        if not wanted:
            return []
        if self._take(wanted) < len(wanted):
            there = set(self._leases.filter(bucket__in=wanted).values_list("bucket", flat=True))
            self._leases.bulk_create(
                [RelayLease(bucket=bucket, until=timezone.now()) for bucket in wanted - there], ignore_conflicts=True
            )
            self._take(wanted)
        mine = self._leases.filter(holder=self.holder, until__gt=Now())
        return list(self._due().filter(bucket__in=mine.values("bucket"))[: self._batch])

    def _take(self, buckets: Iterable[int]) -> int:
        free = self._leases.filter(Q(until__lte=Now()) | Q(holder__in=["", self.holder]), bucket__in=buckets)
        return free.update(holder=self.holder, until=Now() + self._lease)

    def release(self) -> None:
        """Give all buckets back."""
        self._leases.filter(holder=self.holder).update(holder="", until=Now())

    def delete(self, rows: Collection[OutboxMessage]) -> None:
        """Delete rows that were sent."""
        self._rows.filter(pk__in=[row.pk for row in rows]).delete()

    def postpone(self, rows: Collection[OutboxMessage], seconds: float) -> None:
        """Have the groups of these rows wait; it does not count as an attempt."""
        self._rows.filter(pk__in=[row.pk for row in rows]).update(retry_at=Now() + timedelta(seconds=seconds))

    def fail(self, row: OutboxMessage, error: str, seconds: float) -> None:
        """Count an attempt that has failed, and have the group of the row wait for the next one."""
        self._rows.filter(pk=row.pk).update(
            attempts=F("attempts") + 1, error=error[:ERROR_LENGTH], retry_at=Now() + timedelta(seconds=seconds)
        )

    def set_aside(self, row: OutboxMessage, error: str) -> None:
        """Give a row up; the rows behind it go on."""
        self._rows.filter(pk=row.pk).update(
            attempts=F("attempts") + 1, error=error[:ERROR_LENGTH], retry_at=None, set_aside_at=timezone.now()
        )

    def forget(self, retention: float) -> int:
        """Delete the rows that were set aside longer ago than `retention` seconds; their number."""
        before = timezone.now() - timedelta(seconds=retention)
        return self._rows.filter(set_aside_at__lt=before).delete()[0]
