"""Helpers shared by the sites of several packages."""

from __future__ import annotations

import threading

import trio
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse


def login_as(request: HttpRequest) -> HttpResponse:
    """Log in without a password."""
    user = User.objects.get(username=request.GET["user"])
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(user.username)


class _Meeting:
    """A barrier for as many requests as ``?requests=`` says; it can be used again."""

    def __init__(self) -> None:
        self._waiting = 0
        self._all_there = trio.Event()

    async def wait(self, size: int) -> None:
        self._waiting += 1
        all_there = self._all_there
        if self._waiting == size:
            self._waiting, self._all_there = 0, trio.Event()
            all_there.set()
        await all_there.wait()


_meeting = _Meeting()
_barriers: dict[int, threading.Barrier] = {}
_lock = threading.Lock()


async def meet(request: HttpRequest) -> None:
    """Wait, in an async view, until all requests of the round have come here; one request alone does not wait."""
    await _meeting.wait(int(request.GET.get("requests", 1)))


def meet_in_thread(request: HttpRequest) -> None:
    """As :func:`meet`, in a sync view."""
    size = int(request.GET.get("requests", 1))
    with _lock:
        barrier = _barriers.setdefault(size, threading.Barrier(size))
    barrier.wait()
