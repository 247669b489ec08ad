from django.contrib.auth.models import AbstractUser, AnonymousUser

ROOMS = ["lobby", "kitchen", "news"]


def may_write(user: AbstractUser | AnonymousUser, room: str) -> bool:
    return user.is_staff if room == "news" else user.is_authenticated
