"""The database's tables: boards, their members, columns and cards, and the changes that were made."""

from typing import Any

from django.conf import settings
from django.db import models


class Board(models.Model):
    """A board. Its revision counts its changes: each of them locks the board first, so they have one order."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=60)
    revision = models.PositiveBigIntegerField(default=0, editable=False)

    def __str__(self) -> str:
        return self.name

    @property
    def topic(self) -> str:
        """The topic of its changes."""
        return f"board:{self.slug}"


class Member(models.Model):
    """A person who may see a board, and perhaps change it."""

    board = models.ForeignKey(Board, models.CASCADE, related_name="members")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="boards")
    may_write = models.BooleanField(default=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["board", "user"], name="one_membership")]

    def __str__(self) -> str:
        return f"{self.user}, who may {'change' if self.may_write else 'read'} {self.board}"


class Column(models.Model):
    """A column of a board."""

    board = models.ForeignKey(Board, models.CASCADE, related_name="columns")
    name = models.CharField(max_length=40)
    place = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["place", "id"]

    def __str__(self) -> str:
        return self.name


class Card(models.Model):
    """A card. Its version counts its moves: by it a move is known that was made on an old view of the board."""

    TITLE_LENGTH = 120

    class Label(models.TextChoices):
        """The coloured mark of a card."""

        NONE = "", "None"
        IDEA = "idea", "Idea"
        BUG = "bug", "Bug"
        DESIGN = "design", "Design"

    column = models.ForeignKey(Column, models.CASCADE, related_name="cards")
    title = models.CharField(max_length=TITLE_LENGTH)
    label = models.CharField(max_length=10, choices=Label, blank=True)
    place = models.PositiveIntegerField(default=0, editable=False)
    version = models.PositiveIntegerField(default=0, editable=False)
    archived = models.BooleanField(default=False, editable=False)

    class Meta:
        ordering = ["place", "id"]

    def __str__(self) -> str:
        return self.title

    def as_json(self) -> dict[str, Any]:
        """The card as a page gets it. Its place is told by the order of its column."""
        return {"id": self.pk, "title": self.title, "label": self.label, "version": self.version}


class Change(models.Model):
    """A change that was made to a board: the board's activity. It is written together with its message."""

    board = models.ForeignKey(Board, models.CASCADE, related_name="changes")
    revision = models.PositiveBigIntegerField()
    who = models.CharField(max_length=150, help_text="The username at that time.")
    text = models.CharField(max_length=300)
    at = models.DateTimeField(auto_now_add=True)
    push_id = models.CharField(
        max_length=64, null=True, editable=False, help_text="By it a push is known that comes twice."
    )

    class Meta:
        ordering = ["-revision"]
        constraints = [
            models.UniqueConstraint(fields=["board", "revision"], name="one_order_of_changes"),
            models.UniqueConstraint(fields=["board", "push_id"], name="each_push_once"),
        ]

    def __str__(self) -> str:
        return f"{self.who} {self.text}"

    def as_json(self) -> dict[str, Any]:
        """The change as a page gets it."""
        return {"revision": self.revision, "who": self.who, "text": self.text, "at": self.at.isoformat()}
