"""A picture, from its upload to its thumbnail."""

import uuid

from django.db import models
from django.urls import reverse

from .pages import show

#: The number of pictures that a page shows.
SHOWN = 60


class Picture(models.Model):
    """An upload. Its id is its file name: a visitor's text never becomes a path."""

    class State(models.TextChoices):
        WAITING = "waiting"
        WORKING = "working"
        RETRYING = "retrying"  # an attempt failed, and another follows
        DONE = "done"
        FAILED = "failed"  # it cannot work: there is no other attempt
        DEAD = "dead"  # all attempts failed: its message is a dead letter

    class Trouble(models.TextChoices):
        """How the worker is to fail, so that you can see it."""

        NONE = ""
        TWICE = "twice"
        ALWAYS = "always"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    trouble = models.CharField(max_length=10, choices=Trouble.choices, default=Trouble.NONE, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    why = models.CharField(max_length=200, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    #: Counts the changes. Those of the server and of the worker may reach a page in any order.
    version = models.PositiveIntegerField(default=0)
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

    def change(self, state: str, why: str = "", attempt: int | None = None) -> None:
        """Store a new state, and tell all pages."""
        self.state, self.why, self.version = state, why[:200], self.version + 1
        self.attempt = self.attempt if attempt is None else attempt
        self.save(update_fields=["state", "why", "version", "attempt"])
        show(self)

    def as_json(self) -> dict[str, object]:
        """The picture as a page gets it."""
        return {
            "id": str(self.pk),
            "name": self.name,
            "state": self.state,
            "why": self.why,
            "attempt": self.attempt,
            "version": self.version,
            "thumbnail": reverse("thumbnail", args=[self.pk]) if self.state == self.State.DONE else "",
        }
