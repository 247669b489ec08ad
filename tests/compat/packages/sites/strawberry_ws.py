"""A schema with subscriptions, served by Strawberry's consumer for Channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import strawberry
from django.contrib.auth.models import User
from django.urls import path
from strawberry.channels import GraphQLWSConsumer


@strawberry.type
class Query:
    @strawberry.field
    async def users(self) -> int:
        return await User.objects.acount()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            await asyncio.sleep(0)
            yield number

    @strawberry.subscription
    async def news(self, info: strawberry.Info, room: str) -> AsyncGenerator[str, None]:
        consumer = info.context["ws"]
        async with consumer.listen_to_channel("news.item", groups=[room]) as items:
            await consumer.channel_layer.group_send(room, {"type": "news.item", "text": f"welcome to {room}"})
            async for item in items:
                yield item["text"]


urlpatterns: list[Any] = []
websocket_urlpatterns = [
    path("graphql/", GraphQLWSConsumer.as_asgi(schema=strawberry.Schema(Query, subscription=Subscription)))
]
