"""Each test has an exporter of its own, and tracing is disabled after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trio_channels import tracing

from ..layers.conftest import redis_server  # noqa: F401 - a fixture


class Spans:
    """The spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> tuple[ReadableSpan, ...]:
        spans: tuple[ReadableSpan, ...] = self.exporter.get_finished_spans()
        return spans

    def names(self) -> list[str]:
        return [span.name for span in self.all()]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def parent(self, span: ReadableSpan) -> str | None:
        """The name of the span's parent."""
        if span.parent is None:
            return None
        return next(one.name for one in self.all() if one.context.span_id == span.parent.span_id)


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    tracing.enable(spans.provider)
    yield spans
    tracing.disable()
