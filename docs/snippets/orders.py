from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from trio_channels import outbox
from trio_channels.db import aatomic
from trio_channels.on_commit import agroup_send_on_commit, group_send_on_commit


def register(request: HttpRequest) -> HttpResponse:
    """Tells the group after the commit."""
    with transaction.atomic():
        user = User.objects.create(username=request.POST["name"])
        group_send_on_commit("users", {"type": "user.joined", "name": user.username})
    return HttpResponse(status=201)


async def register_async(request: HttpRequest) -> HttpResponse:
    """The same in an async view."""
    async with aatomic():
        user = await User.objects.acreate(username=request.POST["name"])
        await agroup_send_on_commit("users", {"type": "user.joined", "name": user.username})
    return HttpResponse(status=201)


@transaction.atomic
def close_account(user: User) -> None:
    """The message is a row of the same transaction: a relay sends it, whatever happens to this process."""
    user.is_active = False
    user.save()
    outbox.group_send("users", {"type": "user.left", "name": user.username})


async def close_account_async(user: User) -> None:
    """The same in async code."""
    async with aatomic():
        user.is_active = False
        await user.asave()
        await outbox.agroup_send("users", {"type": "user.left", "name": user.username})


@asynccontextmanager
async def run() -> AsyncIterator[None]:
    """While the application runs, a relay sends the messages of the outbox."""
    async with outbox.relay():
        yield
