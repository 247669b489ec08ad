"""Async views: on Trio, holding no thread, in two calls to a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import override_settings
from django.urls import ResolverMatch, URLResolver, path
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin

import trio_channels
from trio_channels._http.handler import DjangoHandler
from trio_channels._threads.database import thread_pool
from trio_channels._threads.lease import current_lease
from trio_channels.testing import HttpCommunicator

from .common import NEUTRAL, Signals, client, fetch, header

# -- a project in a module --------------------------------------------------------------------------------------------

polls: list[trio.Event] = []
made: list[str] = []
running: list[trio.CancelScope] = []


async def long_poll(request: HttpRequest) -> HttpResponse:
    news = trio.Event()
    polls.append(news)
    await news.wait()
    return HttpResponse("news")


def quick(request: HttpRequest) -> HttpResponse:
    return HttpResponse("quick")


async def thread_held(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{current_lease() is not None}")


async def language(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{translation.get_language()} {current_lease() is not None}")


async def blocking_query(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(User.objects.count()))


async def awaited_query(request: HttpRequest) -> HttpResponse:
    await User.objects.acreate(username="ada")
    return HttpResponse(str(await User.objects.acount()))


async def rendered(request: HttpRequest) -> HttpResponse:
    class Response(HttpResponse):
        async def render(self) -> HttpResponse:
            await trio.lowlevel.checkpoint()
            self.content = b"rendered on Trio"
            return self

    return Response()


async def sync_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(str(number) for number in range(3))


async def cancelling(request: HttpRequest) -> HttpResponseBase:
    running.pop().cancel()
    response = StreamingHttpResponse(iter("012")) if "streamed" in request.GET else HttpResponse("whole")
    response._resource_closers.append(lambda: made.append("closed"))  # type: ignore[attr-defined]
    return response


async def etag(request: HttpRequest) -> HttpResponse:
    return HttpResponse("content", headers={"ETag": '"one"'})


class Leaving(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        if request.GET.get("leave") == "before":
            raise SystemExit

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.GET.get("leave") == "after":
            raise SystemExit
        return response


class Counted(MiddlewareMixin):
    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        made.append("async" if self.async_mode else "sync")


def sync_only(get_response: Any) -> Callable[[HttpRequest], Any]:
    return lambda request: get_response(request)


class Elsewhere(MiddlewareMixin):
    """Replaces the URLs of the settings."""

    def process_request(self, request: HttpRequest) -> None:
        request.urlconf = (path("quick/", thread_held), path("thread_held/", quick))  # type: ignore[assignment]


def crashes(request: HttpRequest) -> HttpResponse:
    raise LookupError("in the view")


class LeadsToACrash(MiddlewareMixin):
    """Leads to a synchronous view, which crashes, and answers its exception."""

    def process_request(self, request: HttpRequest) -> None:
        request.urlconf = (path("thread_held/", crashes),)  # type: ignore[assignment]

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        return HttpResponse(f"rescued from {error}")


class Adapted(MiddlewareMixin):
    """Has an asynchronous hook."""

    async def process_template_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        await trio.lowlevel.checkpoint()
        response["X-Hooked"] = "yes"
        return response


VIEWS = (long_poll, quick, thread_held, blocking_query, awaited_query, rendered, sync_stream, cancelling, etag)
urlpatterns = [*(path(f"{view.__name__}/", view) for view in VIEWS), *i18n_patterns(path("language/", language))]

#: Middleware that needs no database: that of a new Django project, and ConditionalGetMiddleware.
COMMON = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
HOST = [(b"host", b"testserver")]


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    polls.clear()
    made.clear()


# -- threads ----------------------------------------------------------------------------------------------------------


async def test_long_polls_hold_no_threads() -> None:
    with override_settings(TRIO_CHANNELS=NEUTRAL | {"WORKER_THREADS": 4}, MIDDLEWARE=COMMON):
        handler = DjangoHandler()
        async with trio.open_nursery() as nursery:
            answers: list[bytes] = []

            async def poll() -> None:
                async with HttpCommunicator(handler, "GET", "/long_poll/", headers=HOST) as http:
                    answers.append((await http.get_response(timeout=30))["body"])

            for _ in range(8):
                nursery.start_soon(poll)
            with trio.fail_after(30):
                while len(polls) < 8:
                    await trio.lowlevel.checkpoint()
            assert thread_pool().statistics().leased == 0
            async with HttpCommunicator(handler, "GET", "/quick/", headers=HOST) as http:
                assert (await http.get_response(timeout=30))["body"] == b"quick"
            assert answers == []
            for news in polls:
                news.set()
        assert answers == [b"news"] * 8


async def test_async_view_under_plain_middleware_costs_two_calls() -> None:
    with override_settings(MIDDLEWARE=COMMON):
        response = await fetch("/thread_held/", headers=HOST)
        assert thread_pool().statistics().calls == 2
    assert response["body"] == b"False"
    assert header(response, "X-Frame-Options") == b"DENY"


async def test_sync_only_middleware_has_an_async_view_hold_a_thread() -> None:
    with override_settings(MIDDLEWARE=[*COMMON, f"{__name__}.sync_only"]):
        assert (await fetch("/thread_held/", headers=HOST))["body"] == b"True"


async def test_view_below_a_language_prefix_is_known_to_be_async() -> None:
    with override_settings(MIDDLEWARE=["django.middleware.locale.LocaleMiddleware"], USE_I18N=True):
        response = await fetch("/de/language/", headers=HOST)
    assert response["body"] == b"de False", "and the language is that of the middleware"


@pytest.mark.parametrize(("where", "body"), [("/quick/", b"True"), ("/thread_held/", b"quick")])
async def test_middleware_may_lead_to_another_kind_of_view(where: str, body: bytes) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.Elsewhere"]):
        assert (await fetch(where))["body"] == body


@pytest.mark.parametrize("where", ["/quick/", "/thread_held/"])
async def test_path_is_resolved_once(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    resolve = URLResolver.resolve

    def counted(self: URLResolver, path: str) -> ResolverMatch:
        asked.append(path)
        return resolve(self, path)

    monkeypatch.setattr(URLResolver, "resolve", counted)
    with override_settings(MIDDLEWARE=COMMON):
        assert (await fetch(where, headers=HOST))["status"] == 200
    assert asked == [where]


async def test_error_of_a_view_of_the_other_kind_reaches_the_middleware() -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.LeadsToACrash"]):
        assert (await fetch("/thread_held/"))["body"] == b"rescued from in the view"


async def test_urls_of_the_request_class_are_asked() -> None:
    class Handler(DjangoHandler):
        class request_class(DjangoHandler.request_class):
            urlconf = (path("elsewhere/", thread_held),)

    async with HttpCommunicator(Handler(), "GET", "/elsewhere/") as http:
        assert (await http.get_response(timeout=30))["body"] == b"False"


async def test_async_middleware_is_made_for_the_first_async_view() -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.Counted"]):
        handler = DjangoHandler()
        for where in ("/quick/", "/thread_held/", "/thread_held/"):
            async with HttpCommunicator(handler, "GET", where) as http:
                await http.get_response(timeout=30)
            assert made == (["sync"] if where == "/quick/" else ["sync", "async"])


# -- queries, responses, middleware -----------------------------------------------------------------------------------


async def test_query_that_would_block_the_loop_is_refused(
    database: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert (await fetch("/blocking_query/"))["status"] == 500
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], SynchronousOnlyOperation)


async def test_query_that_is_awaited_is_answered(database: dict[str, Any]) -> None:
    with override_settings(MIDDLEWARE=COMMON):
        assert (await fetch("/awaited_query/", headers=HOST))["body"] == b"1"


async def test_response_may_be_rendered_on_trio() -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.Adapted"]):
        response = await fetch("/rendered/")
    assert response["body"] == b"rendered on Trio"
    assert header(response, "X-Hooked") == b"yes"


async def test_query_string_that_is_no_utf_8_is_a_bad_request(caplog: pytest.LogCaptureFixture) -> None:
    http = client("/thread_held/")
    http.scope["query_string"] = b"\xff"
    async with http:
        assert (await http.get_response(timeout=30))["status"] == 400
    assert caplog.messages == ["Bad Request (UnicodeDecodeError)"]


def test_debug_tells_of_middleware_that_is_adapted_or_not_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "django.request")
    names = ("async_function", "not_used", "sync_function")
    with override_settings(DEBUG=True, MIDDLEWARE=[f"tests._http.test_equivalence.{name}" for name in names]):
        DjangoHandler()
    assert caplog.messages == [
        "MiddlewareNotUsed('tests._http.test_equivalence.not_used'): not needed",
        "Synchronous handler adapted for middleware tests._http.test_equivalence.async_function.",
    ]


async def test_sync_iterator_of_an_async_view_is_run_by_one_worker() -> None:
    assert (await fetch("/sync_stream/"))["body"] == b"012"


@pytest.mark.parametrize(("tag", "status", "body"), [(b'"one"', 304, b""), (b'"two"', 200, b"content")])
async def test_what_the_client_has_is_not_sent_again(tag: bytes, status: int, body: bytes) -> None:
    with override_settings(MIDDLEWARE=COMMON):
        response = await fetch("/etag/", headers=[*HOST, (b"if-none-match", tag)])
    assert (response["status"], response["body"]) == (status, body)


# -- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_middleware_with_system_exit_finishes_the_request(when: str, sent_signals: Signals) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.Leaving"]):
        async with client(f"/thread_held/?leave={when}") as http:
            await http.send_request()
            with pytest.raises(SystemExit):
                await http.wait(timeout=30)
    assert sent_signals.sent == ["started", "finished"]


async def test_request_cancelled_while_waiting_never_began(sent_signals: Signals) -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1}):
        async with trio.open_nursery() as nursery:

            async def hold(task_status: trio.TaskStatus[None]) -> None:
                async with thread_pool().lease():
                    task_status.started()
                    await trio.sleep_forever()

            await nursery.start(hold)
            async with client("/thread_held/") as http:
                await http.send_request()
                await trio.testing.wait_all_tasks_blocked()
                assert thread_pool().statistics().waiting == 1
            nursery.cancel_scope.cancel()
    assert sent_signals.sent == []


@pytest.mark.parametrize("kind", ["whole", "streamed"])
async def test_response_that_comes_with_a_cancellation_is_closed(kind: str, sent_signals: Signals) -> None:
    parts = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if not parts:
            await trio.sleep_forever()
        return parts.pop()

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()

    http = client(f"/cancelling/?{kind}")
    with trio.CancelScope() as scope:
        running.append(scope)
        await http.application(http.scope, receive, send)
    assert scope.cancelled_caught
    assert made == ["closed"]
    assert sent_signals.sent == ["started", "finished"]


# -- without the bridge -----------------------------------------------------------------------------------------------

PROJECT = """
    import sys

    import django, trio
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path
    from django.utils.decorators import async_only_middleware

    settings.configure(
        ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.failing"], ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["trio_channels"], TRIO_CHANNELS={"ASGIREF_BRIDGE": False}, LOGGING_CONFIG=None,
    )
    django.setup()

    @async_only_middleware
    def failing(get_response):
        async def middleware(request):
            await get_response(request)
            raise LookupError("in the middleware")
        return middleware

    def sync_view(request):
        return HttpResponse()

    async def async_view(request):
        return HttpResponse()

    urlpatterns = [path("sync/", sync_view), path("async/", async_view)]

    async def main():
        from trio_channels import bridge
        from trio_channels._http.handler import DjangoHandler
        from trio_channels.testing import HttpCommunicator
        for where in ("/sync/", "/async/"):
            async with HttpCommunicator(DjangoHandler(), "GET", where) as http:
                print(bridge.installed(), (await http.get_response(timeout=30))["status"])

    trio.run(main)
"""


def test_failing_async_middleware_is_answered_by_django(tmp_path: Path) -> None:
    program = tmp_path / "project.py"
    program.write_text(textwrap.dedent(PROJECT))
    environment = {**os.environ, "PYTHONPATH": str(Path(trio_channels.__file__).parents[1])}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.stdout.splitlines() == ["False 500", "False 500"], done.stderr
