"""A schema, served by a sync view and by an async one."""

from __future__ import annotations

import strawberry
import strawberry_django
import trio
from django.contrib.auth.models import User
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from strawberry.dataloader import DataLoader
from strawberry.django.views import AsyncGraphQLView, GraphQLView
from strawberry.types import Info

from .common import login_as, meet_in_thread


@strawberry_django.type(User)
class Person:
    username: strawberry.auto


@strawberry.type
class Query:
    people: list[Person] = strawberry_django.field()

    @strawberry.field
    def me(self, info: Info) -> str:
        before = info.context.request.user.username
        meet_in_thread(info.context.request)
        return f"{before} {info.context.request.user.username}"


@strawberry.type
class AsyncQuery:
    people: list[Person] = strawberry_django.field()

    @strawberry.field
    async def one(self) -> str:
        await trio.lowlevel.checkpoint()
        return "one"

    @strawberry.field
    async def two(self) -> str:
        await trio.lowlevel.checkpoint()
        return "two"

    @strawberry.field
    async def loaded(self) -> str:
        async def load(keys: list[str]) -> list[str]:
            return keys

        return await DataLoader(load).load("loaded")


@strawberry.type
class Mutation:
    @strawberry.mutation
    def rename(self, username: str, new: str) -> int:
        return User.objects.filter(username=username).update(username=new)


urlpatterns = [
    path("login/", login_as),
    path("sync/", csrf_exempt(GraphQLView.as_view(schema=strawberry.Schema(Query, Mutation)))),
    path("async/", csrf_exempt(AsyncGraphQLView.as_view(schema=strawberry.Schema(AsyncQuery)))),
]
