"""Each replaced function of asgiref in a Trio run, and the cases in which the bridge refuses to be installed."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asgiref
import django
import pytest
import trio
import trio.testing
from asgiref import sync as asgiref_sync
from asgiref.local import Local
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db.models import QuerySet
from django.dispatch import dispatcher
from django.test import override_settings
from django.utils import asyncio as django_asyncio

from trio_channels import bridge
from trio_channels._threads.database import request_thread, thread_pool
from trio_channels._threads.thread import in_pool_thread
from trio_channels.apps import TrioChannelsConfig
from trio_channels.bridge import compatibility, patches
from trio_channels.db import pinned
from trio_channels.exceptions import BridgeError

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
local = Local()

#: From asgiref 3.10 on.
TAKES_A_CONTEXT = "context" in inspect.signature(SyncToAsync).parameters
#: From asgiref 3.13 on.
TAKES_AN_EXECUTOR = "executor" in inspect.signature(ThreadSensitiveContext).parameters


# -- sync_to_async ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thread_sensitive", [True, False])
async def test_synchronous_code_runs_on_a_worker(thread_sensitive: bool) -> None:
    assert await sync_to_async(in_pool_thread, thread_sensitive=thread_sensitive)()
    assert thread_pool().statistics().calls == 1


async def test_what_synchronous_code_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        await sync_to_async(lambda: 1 // 0)()


async def test_context_variables_and_local_data_go_in_and_come_back() -> None:
    def change() -> tuple[str, str]:
        seen = variable.get(), local.name
        variable.set("changed")
        local.name = "changed"
        return seen

    variable.set("set")
    local.name = "set"
    assert await sync_to_async(change)() == ("set", "set")
    assert (variable.get(), local.name) == ("changed", "changed")


async def test_context_goes_through_both_bridges() -> None:
    async def inner() -> None:
        assert (variable.get(), local.name) == ("outer", "outer")
        variable.set("inner")
        local.name = "inner"

    def outer() -> None:
        variable.set("outer")
        local.name = "outer"
        async_to_sync(inner)()
        assert (variable.get(), local.name) == ("inner", "inner")

    await sync_to_async(outer)()
    assert (variable.get(), local.name) == ("inner", "inner")


async def test_handled_exception_is_known_on_the_other_side() -> None:
    async def inner() -> BaseException | None:
        return sys.exc_info()[1]

    def outer() -> tuple[BaseException | None, BaseException | None]:
        return sys.exc_info()[1], async_to_sync(inner)()

    handled = LookupError("no")
    try:
        raise handled
    except LookupError:
        traceback, seen = handled.__traceback__, await sync_to_async(outer)()
    assert seen == (handled, handled)
    assert handled.__traceback__ is traceback
    assert await sync_to_async(outer)() == (None, None)


@pytest.mark.parametrize("size", [1, 3])
async def test_nested_calls_stay_on_their_thread(size: int) -> None:
    async def inner() -> int:
        return await sync_to_async(threading.get_ident)()

    def outer() -> bool:
        return async_to_sync(inner)() == threading.get_ident()

    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": size}):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(sync_to_async(outer))
        assert await sync_to_async(outer)()


async def test_chosen_executor_gets_context_and_gives_it_back() -> None:
    def change() -> str:
        variable.set("changed")
        local.name = "changed"
        return threading.current_thread().name

    with ThreadPoolExecutor(1, "mine") as executor:
        name = await sync_to_async(change, thread_sensitive=False, executor=executor)()
    assert name.startswith("mine")
    assert (variable.get(), local.name) == ("changed", "changed")


async def test_waiting_for_an_executor_can_be_cancelled() -> None:
    begun, go, ran = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        assert go.wait(30)
        ran.append("first")

    with ThreadPoolExecutor(1) as executor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync_to_async(first, thread_sensitive=False, executor=executor))
            await trio.to_thread.run_sync(begun.wait)
            async with trio.open_nursery() as waiting:
                waiting.start_soon(
                    sync_to_async(ran.append, thread_sensitive=False, executor=executor), "of a cancelled call"
                )
                await trio.testing.wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
            go.set()
    assert ran == ["first"]


if TAKES_A_CONTEXT:

    async def test_chosen_context_is_used_and_kept() -> None:
        async def inner() -> int:
            return await sync_to_async(threading.get_ident)()

        def change() -> bool:
            variable.set("changed")
            return async_to_sync(inner)() == threading.get_ident()

        variable.set("mine")
        context = contextvars.copy_context()
        assert await sync_to_async(change, context=context)()
        assert variable.get() == "mine"
        assert context[variable] == "changed"


if TAKES_AN_EXECUTOR:

    async def test_executor_of_a_thread_sensitive_context_is_used() -> None:
        with ThreadPoolExecutor(1, "mine") as executor:
            async with ThreadSensitiveContext(executor=executor):
                thread = await sync_to_async(threading.current_thread)()
                assert thread.name.startswith("mine")
            assert thread.is_alive()


async def test_thread_sensitive_context_can_be_entered_and_left() -> None:
    async with ThreadSensitiveContext(), ThreadSensitiveContext():
        assert await sync_to_async(in_pool_thread)()


async def test_thread_sensitive_context_has_one_thread() -> None:
    seen: dict[str, set[threading.Thread]] = {"one": set(), "other": set()}
    turns = trio.CapacityLimiter(1)

    async def call(name: str, times: int) -> None:
        for _ in range(times):
            seen[name].add(await sync_to_async(threading.current_thread)())
            async with turns:  # the calls mix
                await trio.lowlevel.checkpoint()

    async def context(name: str) -> None:
        async with ThreadSensitiveContext(), ThreadSensitiveContext(), trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call, name, 5)

    async with trio.open_nursery() as nursery:
        for name in seen:
            nursery.start_soon(context, name)
    assert [len(threads) for threads in seen.values()] == [1, 1]
    assert thread_pool().statistics().leased == 0


async def test_thread_sensitive_context_holds_no_thread_before_a_call() -> None:
    async with ThreadSensitiveContext():
        assert thread_pool().statistics().leased == 0
        await sync_to_async(int)()
        assert thread_pool().statistics().held == 1
    assert thread_pool().statistics().leased == 0


async def test_context_inside_a_block_is_on_its_thread() -> None:
    async with pinned():
        thread = await sync_to_async(threading.current_thread)()
        async with ThreadSensitiveContext():
            assert await sync_to_async(threading.current_thread)() is thread
        assert await sync_to_async(threading.current_thread)() is thread
    assert thread_pool().statistics().leased == 0


async def test_context_inside_a_request_is_on_its_thread() -> None:
    with request_thread("request"):
        thread = await sync_to_async(threading.current_thread)()
        async with ThreadSensitiveContext():
            assert await sync_to_async(threading.current_thread)() is thread
        assert await sync_to_async(threading.current_thread)() is thread
    assert thread_pool().statistics().leased == 0


# -- async_to_sync ----------------------------------------------------------------------------------------------------


async def trio_code() -> str:
    await trio.lowlevel.checkpoint()
    return "trio"


async def test_asynchronous_code_runs_in_the_task_that_waits() -> None:
    assert await sync_to_async(async_to_sync(trio_code))() == "trio"


async def test_thread_of_trios_own_comes_back_to_its_run() -> None:
    assert await trio.to_thread.run_sync(async_to_sync(trio_code)) == "trio"


async def test_blocking_the_trio_thread_is_refused() -> None:
    with pytest.raises(BridgeError, match=r"async_to_sync\(trio_code\) was called on a thread that runs trio"):
        async_to_sync(trio_code)()


def test_bridged_functions_are_still_seen_for_what_they_are() -> None:
    assert inspect.iscoroutinefunction(sync_to_async(int).__call__)
    assert not inspect.iscoroutinefunction(async_to_sync(trio_code).__call__)


# -- installing -------------------------------------------------------------------------------------------------------


def test_second_install_changes_nothing() -> None:
    before = SyncToAsync.__call__
    bridge.install()
    assert SyncToAsync.__call__ is before


def test_this_asgiref_and_django_fit() -> None:
    compatibility.check()


@pytest.mark.parametrize("version", ["3.8.0", "4.0.0", "2.1"])
def test_asgiref_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(asgiref, "__version__", version)
    with pytest.raises(BridgeError, match=rf"asgiref {version} and .*: this version of asgiref is not supported"):
        compatibility.check()


@pytest.mark.parametrize("version", [(5, 1, 0, "final", 0), (7, 0, 0, "final", 0)])
def test_django_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, version: tuple[Any, ...]) -> None:
    monkeypatch.setattr(django, "VERSION", version)
    with pytest.raises(BridgeError, match=r"this version of Django is not supported.*ASGIREF_BRIDGE"):
        compatibility.check()


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (asgiref_sync, "SyncToAsync", "there is no asgiref.sync.SyncToAsync"),
        (asgiref_sync.AsyncToSync, "__init__", r"AsyncToSync\(\) fails"),
        (ThreadSensitiveContext, "__aenter__", "there is no ThreadSensitiveContext.__aenter__"),
        (ThreadSensitiveContext, "__aexit__", "there is no ThreadSensitiveContext.__aexit__"),
        (django_asyncio, "get_running_loop", "there is no django.utils.asyncio.get_running_loop"),
        (QuerySet, "aiterator", "there is no QuerySet.aiterator"),
    ],
)
def test_version_without_a_function_that_is_replaced_is_refused(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, said: str
) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(BridgeError, match=said):
        compatibility.check()


def test_dispatcher_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(dispatcher, "_run_parallel", raising=False)
    monkeypatch.delattr(dispatcher, "asyncio")
    with pytest.raises(BridgeError, match=r"there is no django\.dispatch\.dispatcher\.asyncio"):
        compatibility.check()


def test_function_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyncToAsync, "__call__", lambda self: None)
    with pytest.raises(BridgeError, match="must be asynchronous"):
        compatibility.check()


def test_instance_without_what_is_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyncToAsync, "__init__", lambda self, func: None)
    with pytest.raises(BridgeError, match="SyncToAsync has no 'func'; SyncToAsync has no '_executor'"):
        compatibility.check()


@pytest.mark.parametrize(("setting", "installed"), [({}, True), ({"ASGIREF_BRIDGE": False}, False)])
def test_app_config_installs_the_bridge_by_default(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], installed: bool
) -> None:
    calls = []
    monkeypatch.setattr(bridge, "install", lambda: calls.append(True))
    with override_settings(TRIO_CHANNELS=setting):
        TrioChannelsConfig("trio_channels", sys.modules["trio_channels"]).ready()
    assert calls == [True] * installed


def test_it_can_be_installed_by_hand_without_a_django_project() -> None:
    program = """if True:
        import trio
        from asgiref.sync import sync_to_async
        from trio_channels import bridge

        assert not bridge.installed()
        bridge.install()
        assert bridge.installed()
        print(trio.run(sync_to_async(int)))
    """
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


# -- the patches ------------------------------------------------------------------------------------------------------


def test_function_is_replaced_once() -> None:
    class Owner:
        def name(self) -> str:
            return "original"

    patch = patches.Patch(Owner, "name", lambda original: lambda self: f"replaced {original(self)}")
    assert not patch.applied
    patch.apply()
    patch.apply()
    assert patch.applied
    assert Owner().name() == "replaced original"


async def asyncio_gather(*_calls: Any) -> Any:
    raise AssertionError("asyncio's, in a Trio run")


def gather_of_5_2() -> Any:
    module = types.ModuleType("asyncio")
    module.gather = asyncio_gather  # type: ignore[attr-defined]
    return patches._dispatchers_asyncio(module).gather


@pytest.mark.parametrize(
    "run", [gather_of_5_2(), patches._run_parallel(asyncio_gather)], ids=["Django 5.2", "Django 6.1"]
)
async def test_receivers_run_in_trio_in_parallel_whatever_djangos_version(run: Any) -> None:
    met = [trio.Event(), trio.Event()]

    async def receiver(number: int) -> int:
        met[number].set()
        await met[1 - number].wait()  # they wait for each other
        return number

    assert await run(receiver(0), receiver(1)) == [0, 1]


def test_dispatcher_of_5_2_has_the_rest_of_asyncio() -> None:
    async def one() -> int:
        return 1

    async def gathered(module: Any) -> list[int]:
        return list(await module.gather(one(), one()))

    module = patches._dispatchers_asyncio(asyncio)
    assert module.TaskGroup is asyncio.TaskGroup
    assert asyncio.run(gathered(module)) == [1, 1]
