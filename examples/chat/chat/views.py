"""The pages: plain synchronous Django views, which run in threads."""

from django.contrib.auth import login
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.views import RedirectURLMixin
from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.views.generic import CreateView

from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync

from . import rooms
from .forms import EnterForm
from .models import Message
from .people import VISITOR, Person, person_of

ROOMS_SHOWN = 12


def remembered(request: HttpRequest) -> Person:
    """The person behind the request. A new visitor gets a name, which the session stores."""
    person = person_of(request.user, request.session)
    if not person["member"] and VISITOR not in request.session:
        request.session[VISITOR] = person
    return person


def active_rooms() -> list[dict[str, object]]:
    """The rooms with people, fullest first, then the rooms with the latest messages."""
    pages = async_to_sync(get_channel_layer().presence)(rooms.ALL_ROOMS)
    counts = {room: len({page["person"] for page in metas}) for room, metas in pages.items()}
    recent = Message.objects.values("room").annotate(last=Max("sent_at")).order_by("-last")[: 2 * ROOMS_SHOWN]
    last = {entry["room"]: entry["last"] for entry in recent}
    names = sorted(counts, key=counts.__getitem__, reverse=True)
    names += [name for name in last if name not in counts]
    return [{"name": name, "people": counts.get(name, 0), "last": last.get(name)} for name in names[:ROOMS_SHOWN]]


def index(request: HttpRequest) -> HttpResponse:
    """Pick a room and a name."""
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
    return render(request, "chat/index.html", {"form": form, "rooms": active_rooms(), "person": person})


def room(request: HttpRequest, room: str) -> HttpResponse:
    """A room. The page is empty: messages and people come over its WebSocket."""
    context = {"room": room, "person": remembered(request), "max_length": Message.MAX_LENGTH}
    return render(request, "chat/room.html", context)


def no_such_room(request: HttpRequest, name: str) -> HttpResponse:
    """An invalid name of a room: show the rule, and offer the nearest valid name."""
    nearest = slugify(name)[: rooms.MAX_LENGTH].strip("-")
    return render(request, "chat/no_such_room.html", {"name": name, "nearest": nearest, "rule": rooms.RULE}, status=404)


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
