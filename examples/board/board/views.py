"""The pages: the boards of a person, a board, its activity."""

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from trio_channels.event_stream import EventStream, stream_position
from trio_channels.sync import async_to_sync

from .demo import PASSWORD, PEOPLE
from .models import Board, Card
from .rights import membership

#: The changes that the activity shows.
LATEST = 50


def index(request: HttpRequest) -> HttpResponse:
    """The boards of a person; or, with a click for each person of the demo, the way in."""
    context = {"memberships": []}
    if request.user.is_authenticated:
        context["memberships"] = request.user.boards.select_related("board").order_by("board__name")
    elif settings.DEBUG:
        context |= {"people": PEOPLE, "password": PASSWORD}
    return render(request, "board/index.html", context)


@login_required
def board(request: HttpRequest, slug: str) -> HttpResponse:
    """A board. The page has its columns; the cards come over its WebSocket."""
    shown = board_of(request.user, slug)
    context = {"board": shown, "columns": shown.columns.all(), "title_length": Card.TITLE_LENGTH}
    return render(request, "board/board.html", context)


@login_required
def activity(request: HttpRequest, slug: str) -> HttpResponse:
    """The changes of a board, newest first; new ones come over an event stream."""
    shown = board_of(request.user, slug)
    # The position comes first: a change from in between comes twice, and not never. The page knows it by its id.
    since = async_to_sync(stream_position)(shown.topic)
    changes = [change.as_json() for change in shown.changes.all()[:LATEST]]
    return render(request, "board/activity.html", {"board": shown, "changes": changes, "since": since})


class Activity(EventStream):
    """The stream of the activity. Its address is signed for one user; each change comes as HTML."""

    signed = True
    templates = {"change": "board/change.html"}

    def authorize(self, request: HttpRequest, name: str) -> bool:
        # Each time that the page comes back: its user may be a member no more.
        return membership(request.user, name.removeprefix("board:")) is not None


def board_of(user: AbstractBaseUser | AnonymousUser, slug: str) -> Board:
    """The board, for its members; nobody else learns whether there is one."""
    member = membership(user, slug)
    if member is None:
        raise Http404
    return member.board
