"""Tasks, blocks and requests inside one request: all on its thread, none in another's way."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import override_settings
from django.urls import path

from trio_channels._threads.database import thread_pool
from trio_channels.db import aatomic, pinned

from .common import NEUTRAL, client, fetch, until

kept = threading.local()
#: The test's arguments for its view.
given: dict[str, Any] = {}


def settle(tenant: str) -> None:
    kept.tenant = tenant


def tenant() -> str:
    return str(getattr(kept, "tenant", None))


call = sync_to_async


async def block_first(request: HttpRequest) -> HttpResponse:
    """A task that was started before the block settles the tenant while the block is open."""
    opened, settled = trio.Event(), trio.Event()

    async def task() -> None:
        await opened.wait()
        await call(settle)("ada")
        settled.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        async with pinned():
            opened.set()
            await settled.wait()
            return HttpResponse(await call(tenant)())


async def two_transactions(request: HttpRequest) -> HttpResponse:
    """The second task asks for its transaction while the first's is open; the first is rolled back."""
    opened = trio.Event()

    async def first() -> None:
        async with aatomic():
            await User.objects.acreate(username="first")
            opened.set()
            await let_the_other_go_on()
            raise LookupError

    async def second() -> None:
        await opened.wait()
        async with aatomic():
            await User.objects.acreate(username="second")

    return await beside_each_other(first, second)


async def write_beside_a_transaction(request: HttpRequest) -> HttpResponse:
    opened = trio.Event()

    async def first() -> None:
        async with aatomic():
            opened.set()
            await let_the_other_go_on()
            raise LookupError

    async def second() -> None:
        await opened.wait()
        await User.objects.acreate(username="second")

    return await beside_each_other(first, second)


async def blocks_beside_each_other(request: HttpRequest) -> HttpResponse:
    """The transaction is inside a block, and so is the other task's write."""
    opened, both = trio.Event(), trio.Event()

    async def first() -> None:
        async with pinned():
            await both.wait()
            async with aatomic():
                opened.set()
                await let_the_other_go_on()
                raise LookupError

    async def second() -> None:
        async with pinned():
            both.set()
            await opened.wait()
            await User.objects.acreate(username="second")

    return await beside_each_other(first, second)


async def write_beside_a_call(request: HttpRequest) -> HttpResponse:
    """The first task's transaction is a synchronous function's, which waits for an async one."""
    opened = trio.Event()

    async def wait() -> None:
        opened.set()
        await let_the_other_go_on()

    def transact() -> None:
        with transaction.atomic():
            async_to_sync(wait)()
            raise LookupError

    async def second() -> None:
        await opened.wait()
        await User.objects.acreate(username="second")

    return await beside_each_other(call(transact), second)


async def let_the_other_go_on() -> None:
    """Let the other task go on as far as it can: on one thread, its calls are made before each call here."""
    for _ in range(5):
        await trio.testing.wait_all_tasks_blocked()
        await call(int)()


async def beside_each_other(failing: Callable[[], Any], other: Callable[[], Any]) -> HttpResponse:
    async def fail() -> None:
        with pytest.raises(LookupError):
            await failing()

    await call(settle)("ada")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        nursery.start_soon(other)
    return HttpResponse(" ".join([user.username async for user in User.objects.all()]))


async def insensitive(request: HttpRequest) -> HttpResponse:
    """Insensitive calls that wait for each other. The call before them makes the request hold its thread."""
    await call(settle)("ada")
    meeting = threading.Barrier(int(request.GET["calls"]), timeout=30)
    async with trio.open_nursery() as nursery:
        for _ in range(meeting.parties):
            nursery.start_soon(sync_to_async(meeting.wait, thread_sensitive=False))
    return HttpResponse(await call(tenant)())


async def request_inside(request: HttpRequest) -> HttpResponse:
    await call(settle)("ada")
    inside = await fetch("/plain/")
    return HttpResponse(f"{inside['body'].decode()} {await call(tenant)()}")


async def request_inside_a_transaction(request: HttpRequest) -> HttpResponse:
    async with aatomic():
        return await request_inside(request)


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(tenant())


async def leaves_a_task(request: HttpRequest) -> HttpResponse:
    given["nursery"].start_soon(given["task"])
    await given["go on"].wait()
    return HttpResponse("gone")


async def in_a_context(request: HttpRequest) -> HttpResponse:
    """The second request makes a call in the first one's context. Then each looks for its own tenant."""
    context = given.get("context")
    if context is None:
        given["context"] = contextvars.copy_context()
        await given["go on"].wait()
        return HttpResponse(await call(tenant)())

    def settle_inside() -> None:
        async_to_sync(call(settle))("grace")

    await sync_to_async(settle_inside, context=context)()
    given["go on"].set()
    await given["first has answered"].wait()
    return HttpResponse(await call(tenant)())


async def rendered(request: HttpRequest) -> TemplateResponse:
    class Settles:
        def __str__(self) -> str:
            settle("ada")
            return "settled"

    template = engines["django"].from_string("{{ settles }}")
    return TemplateResponse(request, template, {"settles": Settles()})


def looks_after(get_response: Any) -> Any:
    """An async middleware that adds the number of held threads as a header, after the rendering of ``/rendered/``."""

    async def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = await get_response(request)
        if request.path == "/rendered/":
            response["X-Held"] = str(thread_pool().statistics().held)
        return response

    return middleware


looks_after.async_capable, looks_after.sync_capable = True, False  # type: ignore[attr-defined]

TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]

VIEWS = (
    *(block_first, two_transactions, write_beside_a_transaction, write_beside_a_call, insensitive, request_inside),
    *(blocks_beside_each_other, request_inside_a_transaction, plain, leaves_a_task, in_a_context, rendered),
)
urlpatterns = [path(f"{view.__name__}/", view) for view in VIEWS]


@pytest.fixture(autouse=True)
def _nothing_is_given() -> None:
    given.clear()


@pytest.fixture(autouse=True)
async def _every_thread_is_given_back() -> Any:
    with trio.fail_after(60):
        yield
        assert thread_pool().statistics().leased == 0


def threads(number: int) -> Any:
    return override_settings(TRIO_CHANNELS=NEUTRAL | {"WORKER_THREADS": number})


async def body(where: str) -> str:
    return str((await fetch(where))["body"].decode())


async def test_block_is_on_the_thread_of_its_request() -> None:
    assert await body("/block_first/") == "ada"


@pytest.mark.parametrize(
    "view", ["two_transactions", "write_beside_a_transaction", "blocks_beside_each_other", "write_beside_a_call"]
)
async def test_rollback_takes_no_other_tasks_rows(view: str, postgres_database: dict[str, Any]) -> None:
    assert await body(f"/{view}/") == "second"


async def test_insensitive_calls_run_beside_each_other() -> None:
    assert await body("/insensitive/?calls=3") == "ada"


async def test_insensitive_call_waits_for_no_second_thread() -> None:
    with threads(1):
        assert await body("/insensitive/?calls=1") == "ada"


@pytest.mark.parametrize("view", ["request_inside", "request_inside_a_transaction"])
async def test_request_in_a_request_is_part_of_it(view: str, sqlite_database: dict[str, Any]) -> None:
    with threads(1):
        assert await body(f"/{view}/") == "ada ada"


async def test_block_that_outlives_its_request_keeps_the_thread(nursery: trio.Nursery) -> None:
    opened, gone, seen = trio.Event(), trio.Event(), []

    async def task() -> None:
        async with pinned():
            await call(settle)("ada")
            opened.set()
            await gone.wait()
            seen.append(await call(tenant)())

    given.update({"nursery": nursery, "task": task, "go on": opened})
    assert await body("/leaves_a_task/") == "gone"
    assert thread_pool().statistics().held == 1
    gone.set()
    await until(lambda: not thread_pool().statistics().leased)
    assert seen == ["ada"]


async def test_call_that_waits_while_its_request_ends_is_made(nursery: trio.Nursery) -> None:
    """It waits for its turn behind the last call of the request, which waits behind another task's."""
    began, release, go_on, last = threading.Event(), threading.Event(), trio.Event(), trio.Event()

    def block() -> None:
        began.set()
        release.wait(30)

    async def queue_up() -> None:
        await last.wait()
        await call(settle)("ada")

    async def task() -> None:
        nursery.start_soon(queue_up)
        await call(block)()

    given.update({"nursery": nursery, "task": task, "go on": go_on})
    async with client("/leaves_a_task/") as http:
        await http.send_request()
        await until(began.is_set)
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        last.set()
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        assert (await http.get_response())["body"] == b"gone"
    await until(lambda: not thread_pool().statistics().leased)


async def test_call_in_another_requests_context_is_this_requests() -> None:
    given.update({"go on": trio.Event(), "first has answered": trio.Event()})
    seen: list[str] = []

    async def first() -> None:
        seen.append(await body("/in_a_context/"))
        given["first has answered"].set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await until(lambda: "context" in given)
        seen.append(await body("/in_a_context/"))
    assert seen == ["None", "grace"]


async def test_rendering_may_leave_something_on_the_thread() -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.looks_after"], TEMPLATES=TEMPLATES):
        response = await fetch("/rendered/")
    assert (b"X-Held", b"1") in response["headers"]
