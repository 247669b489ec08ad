"""The event stream of the activity: for members only, and each change as HTML."""

from board import changes
from django.contrib.auth.models import User
from django.test import Client

from trio_channels import outbox
from trio_channels.asgi import get_asgi_application
from trio_channels.db import database_sync_to_async
from trio_channels.event_stream import sign_stream
from trio_channels.testing import HttpCommunicator

TOPIC = "board:city-bus"


@database_sync_to_async
def stream_of(user: User) -> HttpCommunicator:
    """The stream, with an address that was signed for a user once, in that user's browser."""
    client = Client()
    client.force_login(user)
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    headers = [(b"host", b"localhost"), (b"cookie", cookie.encode())]
    path = f"/events/?stream={sign_stream(TOPIC, user=user)}"
    return HttpCommunicator(get_asgi_application(), "GET", path, headers=headers)


async def test_change_comes_as_html(people, ids, channel_layer) -> None:
    async with outbox.relay(), await stream_of(people["rosa"]) as stream:
        assert (await stream.receive_event()).event == "stream.open"
        add = database_sync_to_async(changes.add)
        await add(people["ada"], "city-bus", "push-001", column_id=ids["Done"], title="<b>")
        event = await stream.receive_event()
    assert event.event == "change"
    assert event.data.startswith('<li id="change-1"><strong>ada</strong> <span>added “&lt;b&gt;” to Done</span>')


async def test_member_of_yesterday_is_refused(people, channel_layer) -> None:
    async with await stream_of(people["eve"]) as stream:
        assert (await stream.get_response_start())["status"] == 403
