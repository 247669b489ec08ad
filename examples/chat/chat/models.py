"""The database's table: messages."""

from typing import Any

from django.conf import settings
from django.db import models

from . import rooms
from .people import NAME_LENGTH, Person

#: The number of messages that a new page shows.
HISTORY = 50


class MessageQuerySet(models.QuerySet["Message"]):
    """Queries for messages."""

    def latest_in(self, room: str) -> list["Message"]:
        """The last messages of a room, oldest first."""
        return list(self.filter(room=room).order_by("-id")[:HISTORY])[::-1]


class Message(models.Model):
    """A message, with the name that its author had at the time."""

    MAX_LENGTH = 2_000

    room = models.CharField(max_length=rooms.MAX_LENGTH)
    author = models.CharField(max_length=40, help_text="The public id of the person, see people.py.")
    author_name = models.CharField(max_length=NAME_LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, help_text="Only of one who was signed in."
    )
    text = models.TextField(max_length=MAX_LENGTH)
    sent_at = models.DateTimeField(auto_now_add=True)

    objects = MessageQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["room", "id"], name="messages_of_a_room")]

    def __str__(self) -> str:
        return f"{self.author_name} in {self.room}: {self.text[:40]}"

    def as_json(self) -> dict[str, Any]:
        """The message as a page gets it."""
        who = Person(id=self.author, name=self.author_name, member=self.user_id is not None)
        return {
            "kind": "message",
            "id": self.pk,
            "who": who,
            "when": self.sent_at.isoformat(),
            "message": self.text,
        }
