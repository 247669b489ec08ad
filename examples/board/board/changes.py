"""The changes of a board. Each is one transaction, with its row of the activity and its message to the open pages.

The rules:

- A change locks the board before it reads anything else. So two people who move one card come one after the other, and
  the second of them is refused if the card is no longer where that person has seen it.
- The message is in the outbox, a table: it commits with the change, or not at all, and a relay sends it in the order
  of the commits. No page learns of a change that is not there, and none misses one as a process dies.
- The message says how the board is afterwards, the cards and the orders of columns, so that every page ends up alike.
- A push that comes again after an outage has the ``push_id`` of before, and changes nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Max

from trio_channels import outbox
from trio_channels.topics import Refused

from .models import Board, Card, Change, Column
from .rights import FORBIDDEN, membership

#: The cards that a board may have.
MOST_CARDS = 500


@transaction.atomic
def move(
    user: AbstractBaseUser,
    slug: str,
    push_id: str,
    *,
    card_id: int,
    column_id: int,
    before_id: int | None,
    seen: int,
) -> Change:
    """Move a card before another one, or to the end of a column.

    Args:
        seen: the version of the card on the page of the person who moves it.

    Raises:
        Refused: the person may not, or somebody else has moved or archived the card meanwhile.
    """
    board = _locked(user, slug)
    if done := _done(board, push_id):
        return done
    card = _cards(board).select_related("column").filter(pk=card_id).first()
    column = board.columns.filter(pk=column_id).first()
    if card is None or column is None:
        raise Refused({"reason": "gone", "message": "This card is no longer on the board."})
    if card.version != seen:
        raise Refused({"reason": "moved", "message": f"Somebody else has just moved “{card}” to {card.column}."})
    former = card.column
    others = [other for other in column.cards.filter(archived=False) if other.pk != card.pk]
    # If the other card has left the column meanwhile, this one goes to the end.
    place = next((index for index, other in enumerate(others) if other.pk == before_id), len(others))
    card.column, card.version = column, card.version + 1
    card.save(update_fields=["column", "version"])
    _number([*others[:place], card, *others[place:]])
    text = f"moved “{card}” " + (f"within {column}" if former == column else f"from {former} to {column}")
    return _record(board, user, text, cards=[card], columns=[column, former], push_id=push_id)


@transaction.atomic
def add(user: AbstractBaseUser, slug: str, push_id: str, *, column_id: int, title: str) -> Change:
    """Add a card at the end of a column. Raises Refused."""
    board = _locked(user, slug)
    if done := _done(board, push_id):
        return done
    column = board.columns.filter(pk=column_id).first()
    title = " ".join(title.split())
    if column is None or not title:
        raise Refused({"reason": "invalid", "message": "A card needs a column and a title."})
    if _cards(board).count() >= MOST_CARDS:
        raise Refused({"reason": "full", "message": f"A board has at most {MOST_CARDS} cards. Archive some."})
    last = column.cards.aggregate(place=Max("place"))["place"]
    card = Card.objects.create(column=column, title=title, place=0 if last is None else last + 1)
    return _record(board, user, f"added “{card}” to {column}", cards=[card], columns=[column], push_id=push_id)


# -- from the admin, which has rules of its own -----------------------------------------------------------------------


@transaction.atomic
def archive(user: AbstractBaseUser, cards: Iterable[Card], archived: bool = True) -> int:
    """Take cards off their boards, or put them back at the end of their columns; returns their number."""
    ids = [card.pk for card in cards]
    boards = Board.objects.filter(columns__cards__in=ids).values("pk")
    count = 0
    for board in Board.objects.select_for_update().filter(pk__in=boards).order_by("pk"):
        chosen = list(Card.objects.filter(pk__in=ids, column__board=board).exclude(archived=archived))
        columns = list(board.columns.filter(cards__in=chosen).distinct())
        for card in chosen:
            card.archived, card.version = archived, card.version + 1
        Card.objects.bulk_update(chosen, ["archived", "version"])
        for column in columns:
            stay = [card for card in column.cards.filter(archived=False) if card not in chosen]
            _number([*stay, *(card for card in chosen if card.column_id == column.pk and not archived)])
        if chosen:
            text = f"{'archived' if archived else 'restored'} {_named(chosen)}"
            _record(board, user, text, cards=[] if archived else chosen, columns=columns)
        count += len(chosen)
    return count


@transaction.atomic
def edit(user: AbstractBaseUser, card: Card) -> None:
    """Save the title and the label of a card."""
    board = Board.objects.select_for_update().get(pk=card.column.board_id)
    card.save(update_fields=["title", "label"])
    _record(board, user, f"edited “{card}”", cards=[card])


@transaction.atomic
def reshape(user: AbstractBaseUser, board: Board) -> None:
    """After a change of the board itself or its columns: the open pages load it again."""
    board = Board.objects.select_for_update().get(pk=board.pk)
    _record(board, user, "changed the board", cards=[])
    outbox.topic_broadcast(board.topic, "reshaped")


# -- the parts --------------------------------------------------------------------------------------------------------


def state(board: Board, columns: Iterable[Column] | None = None) -> dict[str, Any]:
    """The orders of columns, and the cards in them."""
    columns = list(board.columns.all() if columns is None else columns)
    cards = list(_cards(board).filter(column__in=columns))
    orders = {str(column.pk): [card.pk for card in cards if card.column_id == column.pk] for column in columns}
    return {"orders": orders, "cards": [card.as_json() for card in cards]}


def _locked(user: AbstractBaseUser, slug: str) -> Board:
    """The board, which nobody else changes until the end of the transaction. Raises Refused."""
    board = Board.objects.select_for_update().filter(slug=slug).first()
    member = None if board is None else membership(user, slug)
    if board is None or member is None:
        raise Refused(FORBIDDEN)
    if not member.may_write:
        raise Refused({"reason": "read only", "message": "You may read this board, but not change it."})
    return board


def _done(board: Board, push_id: str) -> Change | None:
    return board.changes.filter(push_id=push_id).first()


def _cards(board: Board) -> Any:
    return Card.objects.filter(column__board=board, archived=False)


def _number(cards: Sequence[Card]) -> None:
    for place, card in enumerate(cards):
        card.place = place
    Card.objects.bulk_update(cards, ["place"])


def _named(cards: Sequence[Card]) -> str:
    return f"“{cards[0]}”" if len(cards) == 1 else f"{len(cards)} cards"


def _record(
    board: Board,
    user: AbstractBaseUser,
    text: str,
    *,
    cards: Sequence[Card],
    columns: Iterable[Column] = (),
    push_id: str | None = None,
) -> Change:
    """Write the change into the activity, and its message into the outbox."""
    board.revision += 1
    board.save(update_fields=["revision"])
    change = board.changes.create(revision=board.revision, who=user.get_username(), text=text, push_id=push_id)
    orders = state(board, columns)["orders"] if columns else {}
    shown = [card.as_json() for card in cards if not card.archived]
    outbox.topic_broadcast(board.topic, "change", change.as_json() | {"cards": shown, "orders": orders})
    return change
