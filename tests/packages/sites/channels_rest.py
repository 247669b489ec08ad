"""A consumer of our own, with a serializer of Django REST framework."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.urls import path
from rest_framework import serializers

from trio_channels.db import database_sync_to_async
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class UserSerializer(serializers.ModelSerializer):
    class Meta:
        model = User
        fields = ("username", "email")


class Users(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        await self.send_json({"action": content["action"], "data": await self.listed()})

    @database_sync_to_async
    def listed(self) -> list[dict[str, str]]:
        return list(UserSerializer(User.objects.order_by("username"), many=True).data)


urlpatterns: list[Any] = []
websocket_urlpatterns = [path("own/", Users.as_asgi())]
