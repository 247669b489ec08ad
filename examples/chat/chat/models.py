"""The database's tables: messages, and how far people have read."""

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Coalesce

from . import rooms
from .people import ID_LENGTH, NAME_LENGTH, Person

#: The number of messages that a page loads.
HISTORY = 50
#: The number of rooms in lists.
ROOMS_SHOWN = 12


class MessageQuerySet(models.QuerySet["Message"]):
    """Queries for messages."""

    def latest_in(self, room: str) -> list["Message"]:
        """The last messages of a room, oldest first."""
        return list(self.filter(room=room).order_by("-id")[:HISTORY])[::-1]

    def latest_rooms(self) -> list[dict[str, Any]]:
        """The rooms with the latest messages: the name, and the id and time of the last message."""
        latest = self.order_by().values("room").annotate(last=models.Max("id"), when=models.Max("sent_at"))
        return [
            {"name": room["room"], "last": room["last"], "when": room["when"].isoformat()}
            for room in latest.order_by("-last")[:ROOMS_SHOWN]
        ]


class Message(models.Model):
    """A message, with the name that its author had at the time."""

    MAX_LENGTH = 2_000

    room = models.CharField(max_length=rooms.MAX_LENGTH)
    author = models.CharField(max_length=ID_LENGTH, help_text="The public id of the person, see people.py.")
    author_name = models.CharField(max_length=NAME_LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, help_text="Only of one who was signed in."
    )
    text = models.TextField(max_length=MAX_LENGTH)
    sent_at = models.DateTimeField(auto_now_add=True)
    push_id = models.CharField(max_length=32, null=True, help_text="The page's id: a message that comes twice is one.")

    objects = MessageQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["room", "id"], name="messages_of_a_room")]
        constraints = [models.UniqueConstraint(fields=["room", "push_id"], name="each_push_once")]

    def __str__(self) -> str:
        return f"{self.author_name} in {self.room}: {self.text[:40]}"

    def as_json(self) -> dict[str, Any]:
        """The message as a page gets it."""
        return {
            "id": self.pk,
            "push_id": self.push_id,
            "who": Person(id=self.author, name=self.author_name, member=self.user_id is not None),
            "when": self.sent_at.isoformat(),
            "text": self.text,
        }


class ReadingQuerySet(models.QuerySet["Reading"]):
    """Queries for what people have read."""

    def unread(self, person: str, names: list[str]) -> dict[str, int]:
        """The number of messages of others that a person has not read, for each of these rooms that they have read."""
        news = Message.objects.filter(room=models.OuterRef("room"), pk__gt=models.OuterRef("read"))
        count = news.exclude(author=person).order_by().values("room").annotate(count=models.Count("pk")).values("count")
        mine = self.filter(person=person, room__in=names)
        return dict(mine.annotate(unread=Coalesce(models.Subquery(count), 0)).values_list("room", "unread"))

    def mark(self, person: str, room: str, message: int) -> None:
        """A person has read a room up to a message. It never goes back."""
        self.get_or_create(person=person, room=room)
        self.filter(person=person, room=room, read__lt=message).update(read=message)


class Reading(models.Model):
    """How far a person has read a room."""

    person = models.CharField(max_length=ID_LENGTH)
    room = models.CharField(max_length=rooms.MAX_LENGTH)
    read = models.BigIntegerField(default=0, help_text="The id of a message.")

    objects = ReadingQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["person", "room"], name="one_reading_of_a_room")]

    def __str__(self) -> str:
        return f"{self.person} has read {self.room} up to {self.read}"
