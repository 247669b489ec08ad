"""The pages: plain synchronous Django views, which run in threads."""

import atexit
import os
import signal
import sys
from functools import cache
from pathlib import Path

from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.views import RedirectURLMixin
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.views.decorators.http import require_POST
from django.views.generic import CreateView

from . import rooms
from .forms import EnterForm
from .models import Message
from .people import VISITOR, Person, person_of

HERE = Path(__file__).resolve().parent
#: The files that the page with the code shows, those that matter most first.
SOURCES = ("topics.py", "static/chat/room.js", "static/chat/*.js", "models.py", "routing.py", "views.py")


def remembered(request: HttpRequest) -> Person:
    """The person behind the request. A new visitor gets a name, which the session stores."""
    person = person_of(request.user, request.session)
    if not person["member"] and VISITOR not in request.session:
        request.session[VISITOR] = person
    return person


def index(request: HttpRequest) -> HttpResponse:
    """Pick a room and a name. The list of rooms comes over the page's WebSocket."""
    person = remembered(request)
    form = EnterForm(
        request.POST or None,
        signed_in=person["member"],
        initial={"room": request.GET.get("room", ""), "name": person["name"]},
    )
    if request.method == "POST" and form.is_valid():
        if "name" in form.cleaned_data:
            request.session[VISITOR] = person | {"name": form.cleaned_data["name"]}
        return redirect("room", room=form.cleaned_data["room"])
    return render(request, "chat/index.html", {"form": form, "person": person})


def room(request: HttpRequest, room: str) -> HttpResponse:
    """A room. The page is empty: messages and people come over its WebSocket."""
    context = {
        "room": room,
        "person": remembered(request),
        "max_length": Message.MAX_LENGTH,
        "may_restart": settings.DEBUG,
    }
    return render(request, "chat/room.html", context)


def no_such_room(request: HttpRequest, name: str) -> HttpResponse:
    """An invalid name of a room: show the rule, and offer the nearest valid name."""
    nearest = slugify(name)[: rooms.MAX_LENGTH].strip("-")
    return render(request, "chat/no_such_room.html", {"name": name, "nearest": nearest, "rule": rooms.RULE}, status=404)


def code(request: HttpRequest) -> HttpResponse:
    """The code of this example."""
    paths = dict.fromkeys(path for pattern in SOURCES for path in sorted(HERE.glob(pattern)))
    files = [{"name": path.relative_to(HERE).as_posix(), "text": path.read_text()} for path in paths]
    return render(request, "chat/code.html", {"files": files})


@require_POST
def restart(_request: HttpRequest) -> HttpResponse:
    """End the server in order, and start it again in the same process. In development only."""
    if not settings.DEBUG:
        raise Http404
    start_again()
    return HttpResponse(status=202)


@cache
def start_again() -> None:
    """Once: a second signal would end the process at once."""
    atexit.register(os.execv, sys.executable, sys.orig_argv)
    os.kill(os.getpid(), signal.SIGTERM)


class SignUp(RedirectURLMixin, CreateView):
    """Create an account and sign in."""

    form_class = UserCreationForm
    template_name = "registration/sign_up.html"
    next_page = "index"

    def form_valid(self, form: UserCreationForm) -> HttpResponse:
        """Sign in the user that the base class has stored."""
        response = super().form_valid(form)
        login(self.request, self.object)
        return response
