"""The topics: who may join, what the pages of others get, and what is refused."""

import pytest
from board import changes
from board.models import Card, Member
from pages import CURSORS, TOPIC, page_of

from trio_channels.db import database_sync_to_async

TICKETS, NEVER = "Tickets for groups", 2**60


def push_of(ids, **more):
    return {"card": ids[TICKETS], "column": ids["Done"], "before": None, "seen": 0, "push_id": "push-001"} | more


@pytest.mark.parametrize("topic", [TOPIC, CURSORS, "board:no-such-board"])
@pytest.mark.parametrize("who", ["eve", "nobody"])
async def test_only_members_join(people, channel_layer, who, topic) -> None:
    async with page_of(people[who]) as page:
        reply = await page.join(topic)
        assert (reply.status, reply.response["reason"]) == ("error", "forbidden")


async def test_join_answers_with_the_board(people, ids, channel_layer) -> None:
    async with page_of(people["rosa"]) as page:
        reply = (await page.join(TOPIC)).response
    assert (reply["revision"], reply["may_write"], len(reply["cards"])) == (0, False, 10)
    assert reply["orders"][str(ids["In progress"])][0] == ids[TICKETS]


async def test_move_reaches_everybody_and_a_second_one_is_refused(people, ids, channel_layer) -> None:
    async with page_of(people["ada"], TOPIC) as ada, page_of(people["ben"], TOPIC) as ben:
        assert (await ada.push(TOPIC, "card.move", push_of(ids))).response == {"revision": 1}
        refused = await ben.push(TOPIC, "card.move", push_of(ids, column=ids["Ideas"], push_id="push-002"))
        assert (refused.status, refused.response["reason"]) == ("error", "moved")
        for page in ada, ben:
            change = (await page.receive_event(TOPIC, "change")).payload
            assert (change["revision"], change["who"]) == (1, "ada")
            assert change["cards"] == [{"id": ids[TICKETS], "title": TICKETS, "label": "", "version": 1}]
            assert change["orders"][str(ids["Done"])][-1] == ids[TICKETS]
            assert ids[TICKETS] not in change["orders"][str(ids["In progress"])]


async def test_changes_come_in_the_order_of_their_revisions(people, ids, channel_layer) -> None:
    async with page_of(people["ada"], TOPIC) as ada, page_of(people["ben"], TOPIC) as ben:
        for number in range(6):
            page = (ada, ben)[number % 2]
            await page.push(
                TOPIC, "card.add", {"column": ids["Ideas"], "title": str(number), "push_id": f"push-00{number}"}
            )
        for page in ada, ben:
            changes = [(await page.receive_event(TOPIC, "change")).payload for _ in range(6)]
            assert [change["revision"] for change in changes] == [1, 2, 3, 4, 5, 6]
            assert [change["cards"][0]["title"] for change in changes] == list("012345")


async def test_reader_is_refused_until_made_a_writer(people, ids, channel_layer) -> None:
    async with page_of(people["rosa"], TOPIC) as rosa:
        assert (await rosa.push(TOPIC, "card.move", push_of(ids))).response["reason"] == "read only"
        await Member.objects.filter(user=people["rosa"]).aupdate(may_write=True)
        assert (await rosa.push(TOPIC, "card.move", push_of(ids))).status == "ok"


@pytest.mark.parametrize(
    "wrong",
    [
        {"card": NEVER},
        {"card": 0},
        {"card": "1"},
        {"column": -1},
        {"before": 1.5},
        {"seen": None},
        {"push_id": "short"},
        {"push_id": "x" * 65},
    ],
    ids=repr,
)
async def test_invalid_move_is_refused(people, ids, channel_layer, wrong) -> None:
    async with page_of(people["ada"], TOPIC) as page:
        assert (await page.push(TOPIC, "card.move", push_of(ids, **wrong))).response["reason"] == "invalid payload"
        assert (await page.push(TOPIC, "card.move", push_of(ids))).status == "ok"


async def test_admin_change_reaches_open_pages(people, ids, channel_layer) -> None:
    async with page_of(people["rosa"], TOPIC) as page:
        await database_sync_to_async(changes.archive)(people["ada"], Card.objects.filter(title=TICKETS))
        change = (await page.receive_event(TOPIC, "change")).payload
        assert (change["text"], change["cards"]) == (f"archived “{TICKETS}”", [])
        assert ids[TICKETS] not in change["orders"][str(ids["In progress"])]


async def test_people_and_their_cursors_are_seen(people, ids, channel_layer) -> None:
    async with page_of(people["ada"], CURSORS) as ada, page_of(people["rosa"], CURSORS) as rosa:
        assert len((await rosa.receive_event(CURSORS, "presence_state")).payload) == 2
        (joined,) = (await ada.receive_event(CURSORS, "presence_diff")).payload["joins"].values()
        assert (joined["metas"][0]["name"], joined["metas"][0]["may_write"]) == ("Rosa", False)
        where = {"column": ids["Done"], "x": 0.5, "y": 20.0, "card": None}
        await rosa.push(CURSORS, "cursor", where)
        assert (await ada.receive_event(CURSORS, "cursor")).payload == {"who": str(people["rosa"].pk), **where}
        for wrong in ({"x": 2}, {"y": -1}, {"column": "a"}):
            assert (await rosa.push(CURSORS, "cursor", where | wrong)).status == "error"
