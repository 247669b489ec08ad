"""The rights: only members see a board. A right that is changed counts at once, for open pages, too."""

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.db.models.signals import post_delete, pre_save

from trio_channels.closing import close_user
from trio_channels.sync import async_to_sync

from .models import Member

FORBIDDEN = {"reason": "forbidden", "message": "You are not a member of this board."}

#: A close code after which topics.js comes back, unlike those from 4000 on.
COME_AGAIN = 1008


def membership(user: AbstractBaseUser | AnonymousUser, slug: str) -> Member | None:
    """The membership of a user, who may be nobody, in a board."""
    if not user.is_authenticated:
        return None
    return Member.objects.select_related("board").filter(board__slug=slug, user=user.pk).first()


def watch() -> None:
    """When a membership changes, close what the user has open. The pages come back, and join with the new rights.

    Django tells nobody of ``update()`` and SQL: who uses these closes the users, too.
    """
    pre_save.connect(_changes, sender=Member)
    post_delete.connect(_ended, sender=Member)


def _changes(instance: Member, **_options: Any) -> None:
    former = Member.objects.filter(pk=instance.pk).first()  # the admin may give a membership to somebody else
    if former is not None:
        _close(former.user_id)


def _ended(instance: Member, **_options: Any) -> None:
    _close(instance.user_id)


def _close(user: int) -> None:
    close = async_to_sync(close_user)
    transaction.on_commit(lambda: close(user, COME_AGAIN, "your rights have changed"), robust=True)
