"""The tables of the outbox."""

from __future__ import annotations

import uuid
from typing import ClassVar

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes both tables."""

    initial = True

    dependencies: ClassVar = []

    operations: ClassVar = [
        migrations.CreateModel(
            name="RelayLease",
            fields=[
                ("bucket", models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ("holder", models.CharField(blank=True, max_length=64)),
                ("until", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("identity", models.UUIDField(default=uuid.uuid4, editable=False)),
                ("layer", models.CharField(max_length=100)),
                ("group", models.CharField(max_length=100)),
                ("bucket", models.PositiveSmallIntegerField(editable=False)),
                ("message", models.BinaryField()),
                ("exclude", models.JSONField(blank=True, default=list)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("retry_at", models.DateTimeField(blank=True, null=True)),
                ("error", models.TextField(blank=True, default="")),
                ("set_aside_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["bucket", "id"], name="trio_channels_outbox_bucket"),
                    models.Index(
                        condition=models.Q(("retry_at__isnull", False)),
                        fields=["retry_at"],
                        name="trio_channels_outbox_retry",
                    ),
                    models.Index(
                        condition=models.Q(("set_aside_at__isnull", False)),
                        fields=["set_aside_at"],
                        name="trio_channels_outbox_aside",
                    ),
                ],
            },
        ),
    ]
