from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.signals import post_save
from django.http import HttpRequest, HttpResponse
from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync


def publish(request: HttpRequest) -> HttpResponse:
    """A plain view: runs on a thread of the pool of the server's Trio run."""
    tell("news", request.POST["text"])
    return HttpResponse(status=204)


async def publish_async(request: HttpRequest) -> HttpResponse:
    """An async view: runs on Trio, and awaits the layer itself."""
    await get_channel_layer().group_send("news", {"type": "news.item", "text": request.POST["text"]})
    return HttpResponse(status=204)


def tell(group: str, text: str) -> None:
    """From any synchronous code: a view, a signal handler, a script, a thread of a task queue."""
    async_to_sync(get_channel_layer().group_send)(group, {"type": "news.item", "text": text})


def announce(sender: type[User], instance: User, created: bool, **kwargs: Any) -> None:
    """A signal handler. It sends after the transaction has committed, and not before."""
    if created:
        transaction.on_commit(lambda: tell("news", f"{instance.username} has joined"))


def connect_signals() -> None:
    """Call this in the ready() of your AppConfig."""
    post_save.connect(announce, sender=User)
