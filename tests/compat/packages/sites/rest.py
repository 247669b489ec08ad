"""Consumers of djangochannelsrestframework: lists, and the changes of a model."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.urls import path
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.mixins import CreateModelMixin, ListModelMixin
from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
from rest_framework.permissions import AllowAny
from rest_framework.serializers import ModelSerializer


class UserSerializer(ModelSerializer):
    class Meta:
        model = User
        fields = ("username", "email")


class Users(ListModelMixin, CreateModelMixin, ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = User.objects.order_by("username")
    serializer_class = UserSerializer
    permission_classes = [AllowAny]


urlpatterns: list[Any] = []
websocket_urlpatterns = [path("users/", Users.as_asgi())]
