"""The demo's board in a database, and its people."""

from typing import Any

import pytest
from board import demo
from board.models import Board, Card
from django.contrib.auth.models import AnonymousUser, User


@pytest.fixture
def board(trio_db: None, settings: Any) -> Board:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a good one is slow
    made = demo.make()
    assert made is not None
    return made


@pytest.fixture
def people(board: Board) -> dict[str, Any]:
    """By name; and nobody, who has not signed in."""
    return {user.username: user for user in User.objects.all()} | {"nobody": AnonymousUser()}


@pytest.fixture
def ids(board: Board) -> dict[str, int]:
    """The ids of columns by name, and those of cards by title."""
    columns = {column.name: column.pk for column in board.columns.all()}
    return columns | {card.title: card.pk for card in Card.objects.all()}
