"""The content type of the permissions. There is no table."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes no table: the model is not managed."""

    initial = True

    dependencies: ClassVar = []

    operations: ClassVar = [
        migrations.CreateModel(
            name="Connection",
            fields=[("name", models.CharField(max_length=200, primary_key=True, serialize=False))],
            options={
                "verbose_name": "live connection",
                "permissions": [
                    ("view_connection", "Can see live connections"),
                    ("act_on_connection", "Can send to and close live connections, and retry dead letters"),
                ],
                "managed": False,
                "default_permissions": (),
                "base_manager_name": "objects",
            },
        ),
    ]
