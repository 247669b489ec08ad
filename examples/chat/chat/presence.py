"""Who is in which room right now.

Every open page is a connection, and a person may have several. Each has a row in the database, where all processes of
the site see it. A connection that ends takes its row away. One whose process was killed cannot; its row is a lie from
then on, and so a row counts only for as long as its connection renews it. The others in the room clear away what has
not been renewed (:func:`renew`).
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from .models import OpenPage
from .people import Person

#: After how many missed renewals a page counts as gone.
MISSED = 3


@transaction.atomic
def join(room: str, channel: str, person: Person) -> bool:
    """Add a connection. Returns whether the others have something to learn: a new person, or a new name."""
    news = person not in people(room)
    OpenPage.objects.update_or_create(
        channel=channel, defaults={"room": room, "person": person, "person_id": person["id"], "seen_at": timezone.now()}
    )
    return news


@transaction.atomic
def leave(room: str, channel: str) -> bool:
    """Remove a connection, if it is there. Returns whether it was the last one of that person."""
    page = OpenPage.objects.filter(room=room, channel=channel).first()
    if page is None:
        return False
    page.delete()
    return not OpenPage.objects.filter(room=room, person_id=page.person_id).exists()


@transaction.atomic
def renew(room: str, channel: str, person: Person) -> tuple[bool, list[Person]]:
    """Say that a connection is still there.

    Returns whether the others had taken this person for gone, and who has gone without a word. The others must be told.
    """
    was_missed = join(room, channel, person)
    lost = OpenPage.objects.filter(room=room, seen_at__lt=_still_there())
    gone = [page.person for page in lost]
    lost.delete()
    here = {somebody["id"] for somebody in people(room)}
    return was_missed, list({somebody["id"]: somebody for somebody in gone if somebody["id"] not in here}.values())


def people(room: str) -> list[Person]:
    """Everybody in the room, each once, in the order they came."""
    pages = OpenPage.objects.filter(room=room, seen_at__gte=_still_there()).order_by("id")
    return list({page.person_id: page.person for page in pages}.values())


def counts() -> dict[str, int]:
    """How many people are in each room that is not empty."""
    rooms = OpenPage.objects.filter(seen_at__gte=_still_there()).values("room")
    return {entry["room"]: entry["people"] for entry in rooms.annotate(people=Count("person_id", distinct=True))}


def _still_there() -> datetime:
    return timezone.now() - timedelta(seconds=MISSED * settings.CHAT_RENEW_PRESENCE)
