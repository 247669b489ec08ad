"""The runner as a process, and the close codes of its clients."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from trio_websocket import ConnectionClosed

from ..process import Program, program

APPLICATION = "tests.runner.application:application"


def serving(
    *arguments: str,
    app: str = APPLICATION,
    command: tuple[str, ...] = ("-m", "trio_channels"),
    settings: str = "tests.runner.settings",
    **environment: str,
) -> AbstractAsyncContextManager[Program]:
    """``trio-channels serve``, on a free port of 127.0.0.1 unless it is told another address."""
    if not any(argument.startswith("--bind") for argument in arguments):
        arguments = ("--bind=127.0.0.1:0", *arguments)
    environment["DJANGO_SETTINGS_MODULE"] = settings
    return program(*command, "serve", app, *arguments, **environment)


async def close_code(client: Any) -> int | None:
    """The code that the client is closed with; None if the connection ends without one."""
    while True:
        try:
            await client.get_message()
        except ConnectionClosed as closed:
            return None if closed.reason is None else closed.reason.code
