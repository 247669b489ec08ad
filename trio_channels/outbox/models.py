"""The tables of the outbox: the messages, and the relays that are at work on them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar

from django.db import models
from django.utils import timezone

#: Where the app is not installed, Django would take trio_channels.
LABEL = "trio_channels_outbox"


class OutboxMessage(models.Model):
    """One message to a group that has not been sent yet, or was set aside because it cannot be sent."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    #: Receivers recognise the message by it. The id would not do: it may come again after the table was emptied.
    identity: models.UUIDField[uuid.UUID, uuid.UUID] = models.UUIDField(default=uuid.uuid4, editable=False)
    layer: models.CharField[str, str] = models.CharField(max_length=100)
    group: models.CharField[str, str] = models.CharField(max_length=100)
    #: A part of all groups; see RelayLease.
    bucket: models.PositiveSmallIntegerField[int, int] = models.PositiveSmallIntegerField(editable=False)
    message: models.BinaryField[bytes, bytes] = models.BinaryField()  # MessagePack
    exclude: models.JSONField[list[str], list[str]] = models.JSONField(default=list, blank=True)
    created_at: models.DateTimeField[datetime, datetime] = models.DateTimeField(default=timezone.now)
    attempts: models.PositiveSmallIntegerField[int, int] = models.PositiveSmallIntegerField(default=0)
    #: By the database's clock. Until then the group waits.
    retry_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(null=True, blank=True)
    error: models.TextField[str, str] = models.TextField(default="", blank=True)
    set_aside_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(null=True, blank=True)

    class Meta:
        """The indexes: for the rows of some buckets, and for the few rows that wait or were set aside."""

        app_label = LABEL
        indexes: ClassVar = [
            models.Index(fields=["bucket", "id"], name="trio_channels_outbox_bucket"),
            models.Index(
                fields=["retry_at"], condition=models.Q(retry_at__isnull=False), name="trio_channels_outbox_retry"
            ),
            models.Index(
                fields=["set_aside_at"],
                condition=models.Q(set_aside_at__isnull=False),
                name="trio_channels_outbox_aside",
            ),
        ]

    def __str__(self) -> str:
        return f"message {self.pk} to {self.group}"


class RelayLease(models.Model):
    """The relay that may send the messages of a bucket, until a time by the database's clock."""

    bucket: models.PositiveSmallIntegerField[int, int] = models.PositiveSmallIntegerField(primary_key=True)
    holder: models.CharField[str, str] = models.CharField(max_length=64, blank=True)
    until: models.DateTimeField[datetime, datetime] = models.DateTimeField()

    class Meta:
        """The app."""

        app_label = LABEL

    def __str__(self) -> str:
        return f"bucket {self.bucket}, held by {self.holder or 'no relay'}"
