"""Django's tasks (from 6.0), with the backend that runs them at once."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.tasks import TaskResultStatus, task
from django.test import override_settings

pytestmark = pytest.mark.usefixtures("immediate")


@pytest.fixture
def immediate() -> Any:
    with override_settings(TASKS={"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}):
        yield


@task
def create(name: str) -> int:
    return User.objects.create(username=name).pk


@task
async def acreate(name: str) -> int:
    return (await User.objects.acreate(username=name)).pk


@pytest.mark.parametrize("made", [create, acreate], ids=["synchronous", "asynchronous"])
async def test_task_is_run_and_its_result_is_there(database: dict[str, Any], made: Any) -> None:
    result = await made.aenqueue("ada")
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert (await User.objects.aget()).pk == result.return_value


@task
async def fail() -> None:
    raise LookupError("no such thing")


async def test_task_that_fails_says_so_in_its_result() -> None:
    result = await fail.aenqueue()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is LookupError


async def test_task_can_be_called_without_a_queue(database: dict[str, Any]) -> None:
    await create.acall("ada")
    await acreate.acall("grace")
    assert await User.objects.acount() == 2
