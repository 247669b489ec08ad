"""Traces that become lines of a file."""

from __future__ import annotations

import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor


def instrument() -> None:
    provider = TracerProvider()
    file = Path(os.environ["TESTS_FOLDER"], "spans.jsonl").open("a")  # noqa: SIM115 - open until the process ends
    exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument()
