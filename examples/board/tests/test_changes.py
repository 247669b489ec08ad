"""The changes: their order, their conflicts, their rights, and the messages that commit with them."""

import pytest
from board import changes, rights
from board.models import Board, Card, Change, Member
from board.topics import whole
from django.contrib.admin.sites import site
from django.db import transaction
from django.test import Client

from trio_channels.outbox.models import OutboxMessage
from trio_channels.topics import Refused

SLUG, TICKETS, COLOURS = "city-bus", "Tickets for groups", "Contrast of the line colours"


def move(people, ids, card=TICKETS, to="Done", before=None, *, who="ada", seen=0, push_id="push-001"):
    return changes.move(
        people[who],
        SLUG,
        push_id,
        card_id=ids[card],
        column_id=ids[to],
        before_id=ids[before] if before else None,
        seen=seen,
    )


def titles(column):
    return [card.title for card in Card.objects.filter(column__name=column, archived=False)]


def test_move_puts_a_card_before_another(board, people, ids) -> None:
    move(people, ids, to="Done", before="Two Sundays in the calendar")
    assert titles("Done") == ["Delays show within a minute", TICKETS, "Two Sundays in the calendar"]
    assert titles("In progress") == [COLOURS]
    change = Change.objects.get()
    assert (change.revision, str(change)) == (1, f"ada moved “{TICKETS}” from In progress to Done")
    assert OutboxMessage.objects.count() == 1


def test_move_within_a_column(board, people, ids) -> None:
    move(people, ids, COLOURS, "In progress", TICKETS)
    assert titles("In progress") == [COLOURS, TICKETS]
    assert Change.objects.get().text.endswith("within In progress")


def test_neighbour_that_has_gone_means_the_end(board, people, ids) -> None:
    move(people, ids, to="Done", before=COLOURS)
    assert titles("Done")[-1] == TICKETS


def test_second_of_two_moves_is_refused(board, people, ids) -> None:
    move(people, ids, to="Ideas", who="ben")
    with pytest.raises(Refused) as refusal:
        move(people, ids, to="Done", push_id="push-002")
    assert refusal.value.response["message"] == f"Somebody else has just moved “{TICKETS}” to Ideas."
    assert titles("Ideas")[-1] == TICKETS
    assert (Change.objects.count(), OutboxMessage.objects.count()) == (1, 1)


def test_push_that_comes_twice_changes_once(board, people, ids) -> None:
    assert move(people, ids) == move(people, ids)
    assert changes.add(people["ada"], SLUG, "push-002", column_id=ids["Done"], title="One") == changes.add(
        people["ada"], SLUG, "push-002", column_id=ids["Done"], title="One"
    )
    assert (Board.objects.get().revision, titles("Done")[2:]) == (2, [TICKETS, "One"])
    other = Board.objects.create(slug="other", name="Other")
    other.members.create(user=people["ben"])
    column = other.columns.create(name="Only")
    assert changes.add(people["ben"], "other", "push-001", column_id=column.pk, title="Two").revision == 1


@pytest.mark.parametrize(
    ("who", "reason"), [("rosa", "read only"), ("eve", "forbidden"), ("nobody", "forbidden"), ("ada", None)]
)
def test_only_writers_change_a_board(board, people, ids, who, reason) -> None:
    found = None
    try:
        move(people, ids, who=who)
    except Refused as refusal:
        found = refusal.response["reason"]
    assert (found, OutboxMessage.objects.count()) == (reason, 0 if reason else 1)


def test_cards_and_columns_of_another_board_are_refused(board, people, ids) -> None:
    other = Board.objects.create(slug="other", name="Other").columns.create(name="Elsewhere")
    ids |= {"Elsewhere": other.pk, "theirs": Card.objects.create(column=other, title="Theirs").pk}
    for options in ({"to": "Elsewhere"}, {"card": "theirs"}):
        with pytest.raises(Refused, match="gone"):
            move(people, ids, **options)
    with pytest.raises(Refused, match="invalid"):
        changes.add(people["ada"], SLUG, "push-002", column_id=other.pk, title="A card")
    assert Change.objects.count() == 0


def test_new_card_needs_a_title_and_room(board, people, ids, monkeypatch) -> None:
    with pytest.raises(Refused, match="invalid"):
        changes.add(people["ada"], SLUG, "push-001", column_id=ids["Done"], title=" \n ")
    monkeypatch.setattr(changes, "MOST_CARDS", 10)
    with pytest.raises(Refused, match="full"):
        changes.add(people["ada"], SLUG, "push-001", column_id=ids["Done"], title="One more")


def test_rollback_takes_the_message_too(board, people, ids) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after_move(people, ids)
    assert (titles("Done")[-1], OutboxMessage.objects.count()) == ("Two Sundays in the calendar", 0)


@transaction.atomic
def fail_after_move(people, ids) -> None:
    move(people, ids)
    raise ZeroDivisionError


def test_archived_card_leaves_and_comes_back_at_the_end(board, people, ids) -> None:
    cards = Card.objects.filter(title__in=[TICKETS, "A map of all stops"])
    assert changes.archive(people["ada"], cards) == 2
    assert changes.archive(people["ada"], cards) == 0  # they are already
    with pytest.raises(Refused, match="gone"):
        move(people, ids)
    assert len(whole(Member.objects.get(user=people["rosa"]))["cards"]) == 8
    assert changes.archive(people["ada"], Card.objects.filter(title=TICKETS), archived=False) == 1
    assert titles("In progress") == [COLOURS, TICKETS]
    assert [change.text for change in Change.objects.all()] == [f"restored “{TICKETS}”", "archived 2 cards"]
    changes.add(people["ada"], SLUG, "push-001", column_id=ids["In progress"], title="  The \n last ")
    assert titles("In progress")[-1] == "The last"


def test_admin_edits_archives_and_reshapes(board, people, ids) -> None:
    client = Client()
    client.force_login(people["ada"])
    card = f"/admin/board/card/{ids[TICKETS]}/change/"
    assert client.post(card, {"title": "Tickets for families", "label": "idea"}).status_code == 302
    chosen = {"action": "archive", "_selected_action": [ids[COLOURS]]}
    assert client.post("/admin/board/card/", chosen).status_code == 302
    chosen["action"] = "restore"
    assert client.post("/admin/board/card/", chosen).status_code == 302
    assert client.get("/admin/board/card/").status_code == 200
    inlines = {f"{name}-{what}_FORMS": 0 for name in ("columns", "members") for what in ("TOTAL", "INITIAL")}
    page = f"/admin/board/board/{board.pk}/change/"
    assert client.post(page, {"name": "Bus", "slug": "stays"} | inlines).status_code == 302
    assert [change.text for change in Change.objects.order_by("revision")] == [
        "edited “Tickets for families”",
        f"archived “{COLOURS}”",
        f"restored “{COLOURS}”",
        "changed the board",
    ]
    assert Board.objects.get().slug == SLUG
    assert client.get("/admin/board/board/add/").status_code == 200
    assert not site.get_model_admin(Card).has_add_permission(None)


@pytest.mark.parametrize(("who", "status"), [("rosa", 200), ("eve", 404), ("nobody", 302)])
@pytest.mark.parametrize("page", ["", "activity/"])
def test_pages_are_for_members(board, people, who, status, page, channel_layer) -> None:
    client = Client()
    if who != "nobody":
        client.force_login(people[who])
    assert client.get(f"/boards/{SLUG}/{page}").status_code == status
    assert client.get("/").status_code == 200


def test_changed_rights_close_what_the_user_has_open(board, people, monkeypatch, django_capture_on_commit_callbacks):
    closed = []

    async def close_user(user, *_args):
        closed.append(user)

    monkeypatch.setattr(rights, "close_user", close_user)
    member, ben, eve = Member.objects.get(user=people["rosa"]), people["ben"].pk, people["eve"]
    rosa = member.user_id
    with django_capture_on_commit_callbacks(execute=True):
        member.may_write = True
        member.save()
        member.user = eve  # somebody else instead
        member.save()
        board.members.get(user=ben).delete()
        board.members.create(user=people["rosa"])  # who had nothing open
    assert closed == [rosa, rosa, ben]
