"""opentelemetry-instrumentation-django, in an application on Trio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.trace import SpanKind

from trio_channels import tracing
from trio_channels.asgi import get_asgi_application
from trio_channels.testing import HttpCommunicator

from .conftest import Spans


def plain(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(trace.format_span_id(trace.get_current_span().get_span_context().span_id))


async def asynchronous(request: HttpRequest, number: int) -> HttpResponse:
    return plain(request, number)


urlpatterns = [path("plain/<int:number>/", plain), path("asynchronous/<int:number>/", asynchronous)]


async def ask(kind: str) -> Any:
    headers = [(b"host", b"localhost")]
    return await HttpCommunicator(get_asgi_application(), "GET", f"/{kind}/3/", headers=headers).get_response()


@pytest.fixture
def instrumented(spans: Spans, settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = list(django_settings.MIDDLEWARE)
    instrumentor = DjangoInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)
    yield
    instrumentor.uninstrument()


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
async def test_view_runs_inside_the_instrumentations_span(
    kind: str, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    tracing.disable()
    response = await ask(kind)
    (span,) = spans.all()
    assert span.name == f"GET {kind}/<int:number>/"
    assert span.kind == SpanKind.SERVER
    assert caplog.messages == []  # such as "Failed to detach context"
    assert response["body"].decode() == trace.format_span_id(span.context.span_id)


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
async def test_instrumentations_span_hangs_below_ours(kind: str, spans: Spans) -> None:
    assert (await ask(kind))["status"] == 200
    inner, outer = spans.named(f"GET {kind}/<int:number>/")
    assert inner.context.trace_id == outer.context.trace_id
    assert inner.kind == SpanKind.INTERNAL
    assert (outer.parent, outer.kind) == (None, SpanKind.SERVER)
