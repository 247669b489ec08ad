"""The demo: four people, and a board with cards. It is made at the first start."""

from dataclasses import dataclass

from django.contrib.auth import get_user_model
from django.db import transaction

from .models import Board, Card

#: The same for all of them. A demo is for your own machine.
PASSWORD = "demo"


@dataclass(frozen=True)
class Person:
    """A person of the demo."""

    username: str
    name: str
    may: str
    writes: bool = True
    is_admin: bool = False


PEOPLE = [
    Person("ada", "Ada", "changes the board, and is the admin", is_admin=True),
    Person("ben", "Ben", "changes the board"),
    Person("rosa", "Rosa", "may only read", writes=False),
]
STRANGER = Person("eve", "Eve", "is not a member")

COLUMNS = {
    "Ideas": [
        ("Let the newsletter show the weather", "idea"),
        ("A map of all stops", "idea"),
        ("Ask riders what annoys them", ""),
    ],
    "To do": [
        ("Timetable breaks on narrow phones", "bug"),
        ("New icons for night buses", "design"),
        ("Write the page about lost property", ""),
    ],
    "In progress": [("Tickets for groups", ""), ("Contrast of the line colours", "design")],
    "Done": [("Delays show within a minute", ""), ("Two Sundays in the calendar", "bug")],
}


@transaction.atomic
def make() -> Board | None:
    """Make the demo unless there is a board; returns the board if it was made."""
    if Board.objects.exists():
        return None
    board = Board.objects.create(slug="city-bus", name="City bus")
    for person in [*PEOPLE, STRANGER]:
        user = get_user_model().objects.create_user(
            person.username,
            password=PASSWORD,
            first_name=person.name,
            is_staff=person.is_admin,
            is_superuser=person.is_admin,
        )
        if person is not STRANGER:
            board.members.create(user=user, may_write=person.writes)
    for place, (name, cards) in enumerate(COLUMNS.items()):
        column = board.columns.create(name=name, place=place)
        Card.objects.bulk_create(
            Card(column=column, title=title, label=label, place=number) for number, (title, label) in enumerate(cards)
        )
    return board
