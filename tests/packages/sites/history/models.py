"""A note, with its history."""

from __future__ import annotations

from django.db import models
from simple_history.models import HistoricalRecords


class Note(models.Model):
    text = models.CharField(max_length=100)
    history = HistoricalRecords()

    class Meta:
        app_label = "history"
