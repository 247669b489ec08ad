"""The topics of a board. A page has two of them in its socket:

``board:<slug>``
    the changes. Its ``join`` answers with the whole board; then each ``change`` has the board's next ``revision``, the
    ``cards`` that it has changed, and the ``orders`` of the columns. Pushes: ``card.move``, ``card.add``
``cursors:<slug>``
    people: who is there (presence), where they point, and the card that they hold. Nothing of it is kept
"""

from typing import Annotated, Any

import msgspec
from django.contrib.auth.models import AbstractBaseUser

from trio_channels.db import database_sync_to_async
from trio_channels.topics import JoinRefused, Topic, event

from . import changes
from .models import Card, Member
from .rights import FORBIDDEN, membership

#: Clients can send anything, so everything has a limit. SQLite's and JavaScript's numbers end somewhere.
Id = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
PushId = Annotated[str, msgspec.Meta(min_length=8, max_length=64)]


class Move(msgspec.Struct):
    """A card is to go before another one, or to the end of a column."""

    card: Id
    column: Id
    before: Id | None
    seen: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    push_id: PushId


class NewCard(msgspec.Struct):
    """A card to be added."""

    column: Id
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=Card.TITLE_LENGTH)]
    push_id: PushId


class Done(msgspec.Struct):
    """The answer to a push: the revision of the board in which it is done."""

    revision: int


class Cursor(msgspec.Struct):
    """Where somebody points: a share of a column's width, and pixels from its top. No column: nowhere."""

    column: Id | None = None
    x: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0
    y: Annotated[float, msgspec.Meta(ge=0, le=100_000)] = 0
    card: Id | None = None


class MemberTopic(Topic):
    """A topic that only the members of its board may join."""

    async def member(self) -> Member:
        """The membership of the socket's user. Raises JoinRefused."""
        found = await database_sync_to_async(membership)(self.user, self.kwargs["slug"])
        if found is None:
            raise JoinRefused(FORBIDDEN)
        return found


class BoardTopic(MemberTopic):
    """The changes of a board."""

    pattern = "board:<slug:slug>"
    sends = {"change": dict[str, Any], "reshaped": None}

    async def join(self, params: dict[str, Any]) -> dict[str, Any]:
        member = await self.member()
        return await database_sync_to_async(whole)(member)

    # Plain methods: each runs on a thread of the pool, as its transaction does.

    @event("card.move")
    def card_move(self, payload: Move) -> Done:
        change = changes.move(
            self.user,
            self.kwargs["slug"],
            payload.push_id,
            card_id=payload.card,
            column_id=payload.column,
            before_id=payload.before,
            seen=payload.seen,
        )
        return Done(revision=change.revision)

    @event("card.add")
    def card_add(self, payload: NewCard) -> Done:
        change = changes.add(
            self.user, self.kwargs["slug"], payload.push_id, column_id=payload.column, title=payload.title
        )
        return Done(revision=change.revision)


class CursorsTopic(MemberTopic):
    """The people at a board."""

    pattern = "cursors:<slug:slug>"
    shows_presence = True
    pushes_per_second = 40
    sends = {"cursor": dict[str, Any]}

    async def join(self, params: dict[str, Any]) -> None:
        member = await self.member()
        await self.track(str(self.user.pk), {"name": name_of(self.user), "may_write": member.may_write})

    @event("cursor")
    async def cursor(self, payload: Cursor) -> None:
        await self.broadcast_from("cursor", {"who": str(self.user.pk), **msgspec.structs.asdict(payload)})


def whole(member: Member) -> dict[str, Any]:
    """The board as a page gets it when it joins."""
    # The revision is read before the state: a change in between comes again as a message, and does no harm.
    board = member.board
    return {"revision": board.revision, "may_write": member.may_write, **changes.state(board)}


def name_of(user: AbstractBaseUser) -> str:
    """The name that others see."""
    return user.get_short_name() or user.get_username()
