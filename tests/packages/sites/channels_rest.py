"""A consumer of djangochannelsrestframework, or one of our own with the same serializer."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.urls import path
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.mixins import ListModelMixin
from rest_framework import serializers

from trio_channels.db import database_sync_to_async
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class UserSerializer(serializers.ModelSerializer):
    class Meta:
        model = User
        fields = ("username", "email")


class ChannelsUsers(ListModelMixin, GenericAsyncAPIConsumer):
    queryset = User.objects.order_by("username")
    serializer_class = UserSerializer


class Users(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        await self.send_json({"action": content["action"], "data": await self.listed()})

    @database_sync_to_async
    def listed(self) -> list[dict[str, str]]:
        return list(UserSerializer(User.objects.order_by("username"), many=True).data)


urlpatterns: list[Any] = []
consumer = ChannelsUsers if settings.CHANNELS_CONSUMER else Users
websocket_urlpatterns = [path("", consumer.as_asgi())]
