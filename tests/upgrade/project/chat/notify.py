from asgiref.sync import iscoroutinefunction, sync_to_async

from .models import Message


@sync_to_async(thread_sensitive=True)
def last():
    return Message.objects.order_by("pk").last()


async def call(function):
    return await function() if iscoroutinefunction(function) else function()
