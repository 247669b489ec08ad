"""A consumer of djangochannelsrestframework."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.urls import path
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.mixins import ListModelMixin

from .channels_rest import UserSerializer


class ChannelsUsers(ListModelMixin, GenericAsyncAPIConsumer):
    queryset = User.objects.order_by("username")
    serializer_class = UserSerializer


urlpatterns: list[Any] = []
websocket_urlpatterns = [path("channels/", ChannelsUsers.as_asgi())]
