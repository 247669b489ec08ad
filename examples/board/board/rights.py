"""The rights: only members see a board. A right that is changed counts at once, for open pages, too."""

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.db.models.signals import post_delete, post_save

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
    """When a membership changes, close what the user has open. The pages come back, and join with the new rights."""
    post_save.connect(_changed, sender=Member)
    post_delete.connect(_changed, sender=Member)


def _changed(instance: Member, created: bool = False, **_options: Any) -> None:
    if not created:
        user = instance.user_id
        transaction.on_commit(
            lambda: async_to_sync(close_user)(user, COME_AGAIN, "your rights have changed"), robust=True
        )
