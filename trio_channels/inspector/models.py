"""The permissions of the inspector, which belong to a model without a table."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class NoRows(models.Manager["Connection"]):
    """Finds nothing, without a query: ``dumpdata`` and others ask every model."""

    def get_queryset(self) -> models.QuerySet[Connection]:
        """An empty set."""
        return super().get_queryset().none()


class Connection(models.Model):
    """The connections of the site as the admin shows them; they are not in the database.

    One that is made here stands for the object of an act, in the log entries of the admin.
    """

    name: models.CharField[str, str] = models.CharField(max_length=200, primary_key=True)

    objects: ClassVar[NoRows] = NoRows()

    class Meta:
        """The permissions: to see, and to act."""

        app_label = "trio_channels_inspector"  # where the app is not installed, Django would take trio_channels
        managed = False
        base_manager_name = "objects"
        default_permissions = ()
        permissions: ClassVar = [
            ("view_connection", "Can see live connections"),
            ("act_on_connection", "Can send to and close live connections, and retry dead letters"),
        ]
        verbose_name = "live connection"

    def __str__(self) -> str:
        return self.name
