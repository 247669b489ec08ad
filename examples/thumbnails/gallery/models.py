"""A picture, from its upload to its thumbnail."""

import uuid

from django.db import models
from django.urls import reverse

#: The number of pictures that a page shows.
SHOWN = 60


class Picture(models.Model):
    """An upload. Its id is its file name: a visitor's text never becomes a path."""

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
        """The path of the upload."""
        return f"originals/{self.pk}"

    @property
    def thumbnail(self) -> str:
        """The path of the thumbnail, which may not exist yet."""
        return f"thumbnails/{self.pk}.webp"

    def as_json(self) -> dict[str, str]:
        """The picture as a page gets it."""
        address = reverse("thumbnail", args=[self.pk]) if self.state == self.State.DONE else ""
        return {"id": str(self.pk), "name": self.name, "state": self.state, "why": self.why, "thumbnail": address}
