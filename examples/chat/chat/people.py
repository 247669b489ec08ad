"""People: members, with their username, and visitors, with a name in their session."""

import secrets
from collections.abc import MutableMapping
from typing import Any, TypedDict

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

#: Django's limit for a username; visitors choose shorter ones.
NAME_LENGTH = 150
ID_LENGTH = 40
VISITOR = "visitor"

_ADJECTIVES = (
    "Amber Bold Brisk Calm Clever Curious Gentle Golden Happy Jolly Keen Kind Lively Lucky Mellow Merry "
    "Nimble Patient Plucky Polite Quick Quiet Silver Sunny Swift Tidy Warm Witty"
)
_ANIMALS = (
    "Badger Bear Beaver Crane Dolphin Falcon Finch Fox Hare Hedgehog Heron Ibex Kestrel Lark Lynx Magpie "
    "Marten Otter Owl Panda Puffin Raven Robin Seal Sparrow Stork Swan Wren"
)


class Person(TypedDict):
    """A person, as others see them. The id is public, and reveals nothing about the session."""

    id: str
    name: str
    member: bool


def new_visitor(name: str = "") -> Person:
    """A new visitor, with the given name or a generated one."""
    generated = f"{secrets.choice(_ADJECTIVES.split())} {secrets.choice(_ANIMALS.split())}"
    return Person(id=f"v{secrets.token_hex(8)}", name=name or generated, member=False)


def person_of(user: AbstractBaseUser | AnonymousUser, session: MutableMapping[str, Any]) -> Person:
    """The person of a user and a session. The caller stores a new visitor in the session."""
    if user.is_authenticated:
        return Person(id=f"u{user.pk}", name=user.get_username(), member=True)
    return session.get(VISITOR) or new_visitor()
