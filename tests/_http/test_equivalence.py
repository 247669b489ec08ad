"""Our handler behaves as Django's own ASGIHandler: a table of middleware stacks, views and failures.

Both run the same requests, Django's on asyncio. The tests compare status, headers, body, the order of all calls
(middleware, hooks, view, signals), the log, and the exception that the server gets where the handler itself raises.

A request can tell each stage of each middleware to raise or to answer: ``?raise=plain.process_request``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core import signals
from django.core.exceptions import BadRequest, MiddlewareNotUsed, PermissionDenied, SuspiciousOperation
from django.core.handlers.asgi import ASGIHandler
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.multipartparser import MultiPartParserError
from django.template.response import SimpleTemplateResponse
from django.test import override_settings
from django.urls import path
from django.utils.decorators import async_only_middleware, sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from trio_channels._http.handler import DjangoHandler

# -- a project in a module --------------------------------------------------------------------------------------------

journal: list[str] = []

FAILURES: dict[str, type[Exception]] = {
    "error": LookupError,
    "404": Http404,
    "403": PermissionDenied,
    "400": BadRequest,
    "suspicious": SuspiciousOperation,
    "multipart": MultiPartParserError,
}


def act(request: HttpRequest, name: str, stage: str) -> HttpResponse | None:
    """Note the call; raise or answer, if the request asks for it here."""
    journal.append(f"{name}.{stage}")
    if request.GET.get("raise") == f"{name}.{stage}":
        raise FAILURES[request.GET.get("as", "error")](f"in {name}.{stage}")
    if request.GET.get("answer") == f"{name}.{stage}":
        return HttpResponse(f"from {name}.{stage}", headers={"X-Answered": name})
    return None


def mark(response: Any, name: str) -> Any:
    response["X-Passed"] = f"{response.get('X-Passed', '')} {name}".strip()
    return response


def sync_function(get_response: Any) -> Any:
    def middleware(request: HttpRequest) -> Any:
        answer = act(request, "sync_function", "before") or get_response(request)
        act(request, "sync_function", "after")
        return mark(answer, "sync_function")

    return middleware


@async_only_middleware
def async_function(get_response: Any) -> Any:
    async def middleware(request: HttpRequest) -> Any:
        answer = act(request, "async_function", "before") or await get_response(request)
        act(request, "async_function", "after")
        return mark(answer, "async_function")

    return middleware


@sync_and_async_middleware
def both_function(get_response: Any) -> Any:
    if not iscoroutinefunction(get_response):

        def middleware(request: HttpRequest) -> Any:
            answer = act(request, "both_function", "before") or get_response(request)
            act(request, "both_function", "after")
            return mark(answer, "both_function")

        return middleware

    async def async_middleware(request: HttpRequest) -> Any:
        answer = act(request, "both_function", "before") or await get_response(request)
        act(request, "both_function", "after")
        return mark(answer, "both_function")

    return async_middleware


class Hooks:
    name = "hooks"

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        return act(request, self.name, "process_view")

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        journal.append(f"{self.name} sees {type(error).__name__}")
        return act(request, self.name, "process_exception")

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        act(request, self.name, "process_template_response")
        return response


class sync_class(Hooks):
    name = "sync_class"

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        answer = act(request, self.name, "before") or self.get_response(request)
        return mark(answer, self.name)


class async_class(Hooks):
    name = "async_class"
    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> Any:
        answer = act(request, self.name, "before") or await self.get_response(request)
        return mark(answer, self.name)

    async def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:  # type: ignore[override]
        return act(request, self.name, "process_view")


class plain(MiddlewareMixin):
    name = "plain"

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        return act(request, self.name, "process_request")

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        act(request, self.name, "process_response")
        return mark(response, self.name)


class hooked(Hooks, plain):
    name = "hooked"


class request_only(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        return act(request, "request_only", "process_request")


class own_call(plain):
    """A middleware with a ``__call__`` of its own around the rest."""

    name = "own_call"

    def __call__(self, request: HttpRequest) -> Any:
        journal.append("own_call called")
        return super().__call__(request)


def not_used(get_response: Any) -> Any:
    raise MiddlewareNotUsed("not needed")


not_used.async_capable = True  # type: ignore[attr-defined]


def sync_view(request: HttpRequest) -> HttpResponse | None:
    return act(request, "view", "sync") or HttpResponse("sync")


async def async_view(request: HttpRequest) -> HttpResponse | None:
    return act(request, "view", "async") or HttpResponse("async", status=418)


class Lazy(SimpleTemplateResponse):
    """Rendered late, without a template engine."""

    def __init__(self, request: HttpRequest) -> None:
        super().__init__("none.html")
        self.asked_by = request

    @property
    def rendered_content(self) -> str:
        act(self.asked_by, "view", "rendering")
        return "rendered"


def sync_lazy(request: HttpRequest) -> HttpResponse:
    return Lazy(request)


async def async_lazy(request: HttpRequest) -> HttpResponse:
    return Lazy(request)


def sync_nothing(request: HttpRequest) -> None:
    journal.append("view")


async def async_nothing(request: HttpRequest) -> None:
    journal.append("view")


def sync_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(part for part in ("a", "", "b"))


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for part in ("a", "b"):
            yield part

    return StreamingHttpResponse(parts())


def custom_error(status: int) -> Callable[..., HttpResponse]:
    def answer(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
        journal.append(f"handler{status}")
        return HttpResponse(f"custom {status} {type(exception).__name__}", status=status)

    return answer


handler400, handler403, handler404 = custom_error(400), custom_error(403), custom_error(404)


def handler500(request: HttpRequest) -> HttpResponse:
    journal.append("handler500")
    return HttpResponse("custom 500", status=500)


VIEWS = (sync_view, async_view, sync_lazy, async_lazy, sync_nothing, async_nothing, sync_stream, async_stream)
urlpatterns = [path(f"{view.__name__}/", view) for view in VIEWS]

# -- the two sides ----------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """All that a request has brought about."""

    status: int | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    calls: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    raised: str | None = None


class Log(logging.Handler):
    """Keeps the lines that Django logs, with the type of the exception."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        self.lines.append(f"{record.name} {record.levelname} {record.getMessage()} {error}")


log = Log()

#: A function of asyncio or Trio that waits until the test is over.
Forever = Callable[[], Awaitable[Any]]


async def exchange(handler: Any, where: str, forever: Forever) -> Seen:
    parts, seen, asked = urlsplit(where), Seen(), False
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "path": parts.path,
        "query_string": parts.query.encode(),
        "headers": [(b"host", b"testserver")],
    }

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await forever()
        asked = True
        return {"type": "http.request"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            seen.status, seen.headers = message["status"], message["headers"]
        else:
            seen.body += message.get("body", b"")
            seen.complete = not message.get("more_body")

    journal.clear()
    log.lines.clear()
    try:
        await handler(scope, receive, send)
    except Exception as error:
        seen.raised = f"{type(error).__name__}: {error}"
    seen.calls, seen.logged = journal[:], log.lines[:]
    return seen


def by_django(requests: Sequence[str]) -> list[Seen]:
    async def run() -> list[Seen]:
        handler = ASGIHandler()
        return [await exchange(handler, where, asyncio.Event().wait) for where in requests]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about synchronous iterators; our handler gives none
        return asyncio.run(run())


def by_us(requests: Sequence[str]) -> list[Seen]:
    async def run() -> list[Seen]:
        handler = DjangoHandler()
        return [await exchange(handler, where, trio.sleep_forever) for where in requests]

    return trio.run(run)


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def signal(name: str) -> Callable[..., None]:
        def receiver(**_kwargs: Any) -> None:
            journal.append(f"signal {name}")

        return receiver

    receivers = [
        (signals.request_started, signal("started")),
        (signals.request_finished, signal("finished")),
        (signals.got_request_exception, signal("exception")),
    ]
    for sent, receiver in receivers:
        sent.connect(receiver)
    logger = logging.getLogger("django")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    logger.addHandler(log)
    with override_settings(ROOT_URLCONF=__name__, DEBUG=False):
        yield
    logger.removeHandler(log)
    for sent, receiver in receivers:
        sent.disconnect(receiver)


# -- the table --------------------------------------------------------------------------------------------------------

STAGES: dict[str, tuple[str, ...]] = {
    "sync_function": ("before", "after"),
    "async_function": ("before", "after"),
    "both_function": ("before", "after"),
    "sync_class": ("before", "process_view", "process_exception", "process_template_response"),
    "async_class": ("before", "process_view", "process_exception", "process_template_response"),
    "plain": ("process_request", "process_response"),
    "hooked": ("process_request", "process_response", "process_view", "process_exception", "process_template_response"),
    "request_only": ("process_request",),
    "own_call": ("process_request", "process_response"),
    "not_used": (),
}


def every_view_for(stack: Sequence[str]) -> Iterator[str]:
    """Every view, failing in every way; and on each kind of view, every stage raising and answering."""
    for view in VIEWS:
        yield f"/{view.__name__}/"
    yield "/nowhere/"
    for kind in ("sync", "async"):
        for failure in FAILURES:
            yield f"/{kind}_view/?raise=view.{kind}&as={failure}"
        yield f"/{kind}_lazy/?raise=view.rendering"
        yield from stages_of(stack, f"/{kind}_view/", f"view.{kind}")
        yield from stages_of(stack, f"/{kind}_lazy/", "view.rendering")


def async_views_for(stack: Sequence[str]) -> Iterator[str]:
    """The shorter table: the places where our handler is built differently from Django's."""
    yield "/sync_lazy/"
    yield "/async_view/?raise=view.async"
    yield from stages_of(stack, "/async_lazy/", "view.rendering")


def stages_of(stack: Sequence[str], view: str, failure: str) -> Iterator[str]:
    for name in stack:
        for stage in STAGES[name]:
            place = f"{name}.{stage}"
            if stage == "process_exception":
                yield f"{view}?raise={failure}&answer={place}"
            else:
                yield f"{view}?raise={place}"
            if stage != "process_template_response":
                yield f"{view}?answer={place}"
                yield f"{view}?raise={place}&as=404"


ORDERED = ("sync_function", "async_function", "both_function", "hooked", "async_class")
STACKS = [
    (),
    *((name,) for name in STAGES),
    *itertools.permutations(ORDERED, 2),
    *itertools.permutations(("plain", "async_function", "hooked")),
    ("plain", "request_only", "hooked"),
    ("hooked", "not_used", "plain"),
    ("plain", "own_call", "hooked"),
    ("plain", "sync_class", "async_class", "hooked"),
    ("plain", "async_class", "sync_class", "hooked"),
    ("hooked", "both_function", "plain", "async_function", "request_only"),
]


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: ",".join(stack) or "none")
def test_middleware_stack_does_as_under_djangos_handler(stack: tuple[str, ...]) -> None:
    compare(stack, list(every_view_for(stack) if len(stack) < 2 else async_views_for(stack)))


@pytest.mark.faults
@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: ",".join(stack) or "none")
def test_every_view_and_stack_does_as_under_djangos_handler(stack: tuple[str, ...]) -> None:
    compare(stack, list(every_view_for(stack)))


def compare(stack: tuple[str, ...], requests: list[str]) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.{name}" for name in stack]):
        django, ours = by_django(requests), by_us(requests)
    different = [
        f"{where}\n  django {theirs}\n  ours   {mine}"
        for where, theirs, mine in zip(requests, django, ours, strict=True)
        if mine != theirs
    ]
    assert not different, "\n".join(different)
    assert all(seen.calls.count("signal started") == seen.calls.count("signal finished") == 1 for seen in ours)
