from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpResponse


def say(request, room):
    async_to_sync(get_channel_layer().group_send)(room, {"type": "chat.message", "text": request.GET["text"]})
    return HttpResponse("said")
