"""Views with a span of their own, in which they wait for each other."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import path
from opentelemetry import trace

from .common import meet, meet_in_thread

tracer = trace.get_tracer(__name__)


def current_trace() -> str:
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


def sync(request: HttpRequest) -> HttpResponse:
    with tracer.start_as_current_span("own", attributes={"user": request.GET["user"]}):
        meet_in_thread(request)
        return HttpResponse(current_trace())


async def asynchronous(request: HttpRequest) -> HttpResponse:
    with tracer.start_as_current_span("own", attributes={"user": request.GET["user"]}):
        await meet(request)
        await User.objects.acount()
        await meet(request)
        return HttpResponse(current_trace())


urlpatterns = [path("sync/", sync), path("async/", asynchronous)]
