from django.http import HttpRequest
from django.urls import path
from trio_channels.event_stream import EventStream


class RoomEvents(EventStream):
    def get_groups(self) -> list[str]:
        return [f"room:{self.kwargs['room']}", "news"]

    async def authorize(self, request: HttpRequest, name: str) -> bool:
        user = await request.auser()
        return name == "news" or user.is_authenticated


urlpatterns = [
    path("news/events/", EventStream.as_view(groups=["news"])),
    path("rooms/<slug:room>/events/", RoomEvents.as_view()),
]
