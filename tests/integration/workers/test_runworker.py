"""``manage.py runworker`` and ``deadletters``: real processes, real signals, a real Redis."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio
from django.core.management import call_command
from django.core.management.base import CommandError, SystemCheckError
from django.test import override_settings

from trio_channels.consumer import AsyncConsumer
from trio_channels.layers import channel_layers
from trio_channels.management._logging import log_to_stderr
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter
from trio_channels.server.lifespan import CANNOT_START

from . import project
from .conftest import Workers


def job(kind: str, number: int, **content: Any) -> dict[str, Any]:
    return {"type": f"job.{kind}", "n": number, **content}


async def send(workers: Workers, *messages: dict[str, Any]) -> None:
    async with workers.layer() as layer:
        for message in messages:
            await layer.send("jobs", message)


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.faults)])
async def test_signal_lets_handlers_finish_and_takes_no_more(
    workers: Workers, tmp_path: Path, number: signal.Signals
) -> None:
    gate = tmp_path / "gate"
    worker = workers.start("--concurrency", "2")
    await send(workers, *(job("until", n, path=str(gate)) for n in range(4)))
    await workers.until(lambda: len(workers.numbers("begin")) == 2)
    worker.send_signal(number)
    await trio.to_thread.run_sync(_read_until, worker, "handlers may finish within 30 seconds")
    gate.touch()
    code, output = await trio.to_thread.run_sync(workers.end, worker)
    assert code == 0, output
    assert sorted(workers.numbers("begin")) == sorted(workers.numbers("end")) == [0, 1]
    assert "stopped: jobs: 2 handled, 0 failed, 0 running" in output
    assert "Traceback" not in output


@pytest.mark.faults
async def test_second_signal_ends_a_worker_at_once(workers: Workers) -> None:
    worker = workers.start()
    await send(workers, job("hang", 1), job("thread", 2))
    await workers.until(lambda: len(workers.numbers("begin")) == 2)
    worker.send_signal(signal.SIGTERM)
    await trio.to_thread.run_sync(_read_until, worker, "handlers may finish")
    code, output = await trio.to_thread.run_sync(workers.end, worker, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, output
    assert "SIGTERM again: ending at once" in output
    async with workers.layer() as layer, layer.work_queue("jobs").serve(claim_after=0.5) as source:
        with trio.fail_after(60):
            taken = list(await source.take(2))
            while len(taken) < 2:
                taken += await source.take(2)
    assert {delivery.message["n"] for delivery in taken} == {1, 2}


@pytest.mark.faults
async def test_handlers_beyond_the_grace_leave_exit_code_0(workers: Workers) -> None:
    worker = workers.start(WORKER_TEST_GRACE="0.1")
    await send(workers, job("hang", 1))
    await workers.until(lambda: workers.numbers("begin") == [1])
    code, output = await trio.to_thread.run_sync(workers.end, worker, signal.SIGTERM)
    assert code == 0, output
    assert "jobs: 1 handlers were cancelled: they took longer than 0.1 seconds" in output
    async with workers.layer() as layer, layer.work_queue("jobs").serve() as source:
        with trio.fail_after(60):
            [delivery] = await source.take(1)
    assert (delivery.message["n"], delivery.count) == (1, 1)


def _read_until(worker: Any, words: str) -> None:
    while words not in (line := worker.stdout.readline()):
        assert line, "the worker has ended"


# -- dead letters -----------------------------------------------------------------------------------------------------


async def test_dead_letters_are_listed_sent_again_and_forgotten(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = workers.start("--max-deliveries", "1")
    await send(workers, job("fail", 1), job("fail", 2))
    async with workers.layer() as layer:
        queue = layer.work_queue("jobs")

        async def two_dead() -> bool:
            return len(await queue.dead_letters()) == 2

        await workers.until(two_dead)
        code, output = await trio.to_thread.run_sync(workers.end, worker, signal.SIGTERM)
        assert code == 0
        assert output.count("failed; it is a dead letter now") == 2
        assert output.count("ValueError: boom") == 2
        assert "on channel jobs" in output
        first, _ = await queue.dead_letters()
        listed = await _deadletters(workers, capsys)
        assert f"{first.id}  1 deliveries  ValueError: boom" in listed
        assert "'type': 'job.fail'" in listed
        assert "jobs: 2 dead letters" in listed
        assert await _deadletters(workers, capsys, "--requeue", first.id) == "jobs: 1 sent again\n"
        assert await _deadletters(workers, capsys, "--discard") == "jobs: 1 forgotten\n"
        assert await _deadletters(workers, capsys) == "jobs: no dead letters\n"
        async with queue.serve() as source:
            [delivery] = await source.take(5)
            assert (delivery.message["type"], delivery.count) == ("job.fail", 1)
        with pytest.raises(CommandError, match=r"the id of a dead letter must look like .* got 'x'"):
            await _deadletters(workers, capsys, "--requeue", "x")


async def _deadletters(workers: Workers, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    def command() -> str:
        layer = workers.layer()
        before = channel_layers.set("default", layer)
        try:
            call_command("deadletters", "jobs", *options)
        finally:
            channel_layers.set("default", before)
        return capsys.readouterr().out

    return await trio.to_thread.run_sync(command)


# -- refused arguments and applications -------------------------------------------------------------------------------

REFUSED = [
    (["jobs", "--layer", "nope"], "CHANNEL_LAYERS has no entry 'nope'; configured: 'default', 'local'"),
    (["jobs", "--layer", "local"], "in-memory layer, which gets no messages from other processes"),
    (["job"], "no application for the channel 'job'; known: 'jobs', 'others'"),
    (["no name"], "a named channel's name must be a str of 1 to 99"),
    (["jobs", "--concurrency", "0"], "concurrency of a worker must be an int of at least 1; got 0"),
    (["jobs", "--max-deliveries", "0"], "max_deliveries of a worker must be an int of at least 1; got 0"),
    (["jobs", "--claim-after", "0"], "claim_after of a worker must be a number of seconds above 0; got 0"),
    (["jobs", "--concurrency", "many"], "argument --concurrency: invalid int value: 'many'"),
    (["jobs", "--ack", "never"], "argument --ack: invalid choice: 'never'"),
    ([], "the following arguments are required: CHANNEL"),
]


@pytest.mark.parametrize(("arguments", "complaint"), REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence(arguments: list[str], complaint: str) -> None:
    with (
        override_settings(CHANNEL_LAYERS=project.CHANNEL_LAYERS, ASGI_APPLICATION=project.ASGI_APPLICATION),
        pytest.raises(CommandError, match=complaint),
    ):
        call_command("runworker", *arguments)


@pytest.mark.parametrize(
    ("application", "complaint"),
    [
        (None, "ASGI_APPLICATION must be a path such as 'mysite.asgi.application'; got None"),
        (
            "tests.integration.workers.test_runworker.without_channels",
            "has no application for the scope type 'channel'",
        ),
    ],
)
def test_application_that_cannot_work_is_refused(application: str | None, complaint: str) -> None:
    with (
        override_settings(CHANNEL_LAYERS=project.CHANNEL_LAYERS, ASGI_APPLICATION=application),
        pytest.raises(CommandError, match=complaint),
    ):
        call_command("runworker", "jobs")


def test_redis_that_refuses_is_a_sentence_and_not_a_traceback(workers: Workers) -> None:
    refusing = dict(project.CHANNEL_LAYERS["default"])
    refusing["CONFIG"] = {"hosts": [f"{workers.url}/4000"]}
    with (
        override_settings(CHANNEL_LAYERS={"default": refusing}, ASGI_APPLICATION=project.ASGI_APPLICATION),
        pytest.raises(CommandError, match="DB index is out of range") as failure,
    ):
        call_command("runworker", "jobs", verbosity=0)
    assert failure.value.returncode == CANNOT_START


@pytest.mark.django_db  # Django 6.1 asks the database about JSON, for the outbox
@override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "no.such.Layer"}})
def test_system_check_that_fails_has_the_same_code() -> None:
    with pytest.raises(SystemCheckError) as failure:
        call_command("runworker", "jobs", skip_checks=False)
    assert failure.value.returncode == CANNOT_START


# -- the log ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "trio_channels", "trio_channels.worker"])
def test_each_line_of_a_worker_comes_out_once(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """LOGGING has a handler for no logger, for ``trio_channels``, or for a part of it."""
    to_stdout = logging.StreamHandler(sys.stdout)
    configured = logging.getLogger(name)
    with (
        patch.object(logging.getLogger(), "handlers", []),
        patch.object(logging.getLogger(), "level", logging.WARNING),
        patch.object(configured, "handlers", [to_stdout] if name else []),
    ):
        log_to_stderr(1)
        logging.getLogger("trio_channels.worker").warning("of the worker")
        logging.getLogger("mysite").info("of the site")
        told = capsys.readouterr()
    assert (told.out + told.err).count("of the worker") == 1
    assert told.err.count("of the site") == 1


without_channels = ProtocolTypeRouter({})


# -- the command in this process --------------------------------------------------------------------------------------


class Impatient(AsyncConsumer):
    """Sends its own process two signals."""

    async def job_stop(self, message: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()


impatient = ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": Impatient.as_asgi()})})


def test_second_signal_exits_with_its_number(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = {"hosts": [workers.url], "prefix": workers.prefix}
    layers = {"default": {"BACKEND": project.CHANNEL_LAYERS["default"]["BACKEND"], "CONFIG": config}}
    trio.run(send, workers, job("stop", 1))
    with (
        override_settings(CHANNEL_LAYERS=layers, ASGI_APPLICATION=f"{__name__}.impatient"),
        pytest.raises(SystemExit) as end,
    ):
        call_command("runworker", "jobs")
    assert end.value.code == 128 + signal.SIGINT
    assert "SIGTERM: " in caplog.text
    assert "SIGINT again: ending at once" in caplog.text
