"""A schema with a subscription, served by DjangoChannelsGraphqlWs."""

from __future__ import annotations

from typing import Any

import channels_graphql_ws
import graphene
from django.urls import path


class NewMessage(channels_graphql_ws.Subscription):
    text = graphene.String()

    class Arguments:
        room = graphene.String()

    @staticmethod
    def subscribe(_root: Any, _info: Any, room: str) -> list[str]:
        return [room]

    @staticmethod
    def publish(payload: dict[str, str], _info: Any, room: str) -> NewMessage:
        return NewMessage(text=payload["text"])


class Say(graphene.Mutation):
    ok = graphene.Boolean()

    class Arguments:
        room = graphene.String()
        text = graphene.String()

    @staticmethod
    async def mutate(_root: Any, _info: Any, room: str, text: str) -> Say:
        await NewMessage.broadcast(group=room, payload={"text": text})
        return Say(ok=True)


class Query(graphene.ObjectType):
    value = graphene.String()


class Mutation(graphene.ObjectType):
    say = Say.Field()


class Subscription(graphene.ObjectType):
    new_message = NewMessage.Field()


class Consumer(channels_graphql_ws.GraphqlWsConsumer):
    schema = graphene.Schema(query=Query, mutation=Mutation, subscription=Subscription)


urlpatterns: list[Any] = []
websocket_urlpatterns = [path("graphql/", Consumer.as_asgi())]
