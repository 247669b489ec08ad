"""The page of the inspector in Django's admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode

from .. import _conf
from ..exceptions import TrioChannelsError
from ..layers.names import is_group_name
from ..sync import async_to_sync
from .acting import ACTS, log
from .asking import overview
from .forms import ActForm
from .models import Connection
from .queues import channels_of_application
from .report import LONGEST, Question

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Connection]
else:
    _ModelAdmin = admin.ModelAdmin

_TEMPLATES = "admin/trio_channels_inspector"


@admin.register(Connection)
class ConnectionAdmin(_ModelAdmin):
    """Shows the live connections to staff with ``view_connection``; acts for staff with ``act_on_connection``."""

    def get_urls(self) -> list[URLPattern]:
        """The page, and the acts; without the pages of other models."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("", self.admin_site.admin_view(self.changelist_view), name=f"{name}_changelist"),
            path("act/", self.admin_site.admin_view(self.act_view), name=f"{name}_act"),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody can."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody can."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody can."""
        return False

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Whether the user may send, close and retry."""
        user: Any = request.user  # the admin lets only staff come here
        return user.has_perm(f"{self.opts.app_label}.act_on_connection") and self.has_view_permission(request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The page. Raises PermissionDenied for staff without the permission."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        find, group = request.GET.get("find", "")[:LONGEST], request.GET.get("group", "")
        group = group if is_group_name(group) else ""
        question = Question(find, group, _conf.get("INSPECTOR_CONNECTIONS"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Live connections",
            "opts": self.opts,
            "overview": async_to_sync(overview)(question, channels_of_application()),
            "find": find,
            "group": group,
            "layer": request.GET.get("layer", ""),
            "may_act": self.has_act_permission(request),
            "here": self._url("changelist"),
            "act_url": self._url("act"),
            **(extra_context or {}),
        }
        return TemplateResponse(request, f"{_TEMPLATES}/connections.html", context)

    def act_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for a confirmation of an act, or carry it out. Raises PermissionDenied without the permission."""
        if not self.has_act_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        form = ActForm(request.POST)
        back = self._back(request.POST.get("find", ""), request.POST.get("group", ""))
        if "confirmed" not in request.POST or not form.is_valid():
            return self._ask(request, form, back)
        act = form.act()
        try:
            done = async_to_sync(act.perform)()
        except TrioChannelsError as error:
            log(request.user, act, error)
            messages.error(request, f"This has failed: {error}")
        else:
            log(request.user, act)
            self.log_change(request, Connection(name=act.target[:LONGEST]), str(act))
            messages.success(request, done)
        return HttpResponseRedirect(back)

    def _ask(self, request: HttpRequest, form: ActForm, back: str) -> HttpResponse:
        kind = str(request.POST.get("kind", ""))
        context = {
            **self.admin_site.each_context(request),
            "title": ACTS.get(kind, "Unknown act"),
            "opts": self.opts,
            "form": form,
            "errors": form.errors if "confirmed" in request.POST or not ACTS.get(kind) else {},
            "known": kind in ACTS,
            "kind": kind,
            "target": request.POST.get("target", "")[:LONGEST],
            "username": request.POST.get("username", "")[:LONGEST],
            "ids": str(request.POST.get("ids", "")).split(),
            "find": request.POST.get("find", ""),
            "group": request.POST.get("group", ""),
            "back": back,
            "act_url": self._url("act"),
        }
        return TemplateResponse(request, f"{_TEMPLATES}/confirm.html", context)

    def _url(self, view: str) -> str:
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{view}"
        return reverse(name)

    def _back(self, find: str, group: str) -> str:
        query = {key: value for key, value in (("find", find), ("group", group)) if value}
        return self._url("changelist") + (f"?{urlencode(query)}" if query else "")
