import trio
from django.http import HttpRequest, HttpResponse
from trio_channels.layers import get_channel_layer

SECONDS = 25  # below the time-outs of proxies


async def news(request: HttpRequest) -> HttpResponse:
    """Answers with the next news item, or with 204 after a while."""
    async with get_channel_layer().subscribe("news", overflow="drop_oldest") as events:
        with trio.move_on_after(SECONDS):
            async for event in events:
                if isinstance(event, dict):  # and not a Gap
                    return HttpResponse(event["text"])
    return HttpResponse(status=204)
