"""A picture, from its upload to its thumbnail."""

import uuid

from django.db import models
from django.urls import reverse

#: Pictures that a page shows.
SHOWN = 60


class Picture(models.Model):
    """An upload. Its file is stored under its id: no name of a visitor's becomes a path."""

    class State(models.TextChoices):
        WAITING = "waiting"
        DONE = "done"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    why = models.CharField(max_length=200, blank=True)
    uploaded_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ("-uploaded_at",)

    def __str__(self) -> str:
        return f"{self.name} ({self.state})"

    @property
    def original(self) -> str:
        """Where the upload is stored."""
        return f"originals/{self.pk}"

    @property
    def thumbnail(self) -> str:
        """Where the thumbnail is stored, once there is one."""
        return f"thumbnails/{self.pk}.webp"

    def as_json(self) -> dict[str, str]:
        """What a page needs to know."""
        address = reverse("thumbnail", args=[self.pk]) if self.state == self.State.DONE else ""
        return {"id": str(self.pk), "name": self.name, "state": self.state, "why": self.why, "thumbnail": address}
