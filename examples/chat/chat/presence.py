"""The people who are in a room now.

Every open page is a connection, and a person may have several. Each connection has a row in the database, which all
processes of the site see, and deletes it when it ends. A connection of a killed process cannot. So a row counts only as
long as its connection renews it, and the other connections of the room delete rows that were not renewed
(:func:`renew`).
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from .models import OpenPage
from .people import Person

#: Missed renewals after which a page counts as gone.
MISSED = 3


@transaction.atomic
def join(room: str, channel: str, person: Person) -> bool:
    """Add a connection. Returns whether it brings a new person, or a new name, which the others must be told."""
    news = person not in people(room)
    OpenPage.objects.update_or_create(
        channel=channel, defaults={"room": room, "person": person, "person_id": person["id"], "seen_at": timezone.now()}
    )
    return news


@transaction.atomic
def leave(room: str, channel: str) -> bool:
    """Remove a connection. Returns whether it was the last one of its person."""
    page = OpenPage.objects.filter(room=room, channel=channel).first()
    if page is None:
        return False
    page.delete()
    return not OpenPage.objects.filter(room=room, person_id=page.person_id).exists()


@transaction.atomic
def renew(room: str, channel: str, person: Person) -> tuple[bool, list[Person]]:
    """Renew a connection's row.

    Returns:
        Whether the others had taken this person for gone; and the people whose rows were not renewed, and so are gone
        now. The caller tells the room both.
    """
    was_missed = join(room, channel, person)
    lost = OpenPage.objects.filter(room=room, seen_at__lt=_still_there())
    gone = [page.person for page in lost]
    lost.delete()
    here = {somebody["id"] for somebody in people(room)}
    return was_missed, list({somebody["id"]: somebody for somebody in gone if somebody["id"] not in here}.values())


def people(room: str) -> list[Person]:
    """The people in the room, each once, in the order in which they came."""
    pages = OpenPage.objects.filter(room=room, seen_at__gte=_still_there()).order_by("id")
    return list({page.person_id: page.person for page in pages}.values())


def counts() -> dict[str, int]:
    """The number of people in each room that is not empty."""
    rooms = OpenPage.objects.filter(seen_at__gte=_still_there()).values("room")
    return {entry["room"]: entry["people"] for entry in rooms.annotate(people=Count("person_id", distinct=True))}


def _still_there() -> datetime:
    return timezone.now() - timedelta(seconds=MISSED * settings.CHAT_RENEW_PRESENCE)
