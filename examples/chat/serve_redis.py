#!/usr/bin/env python
"""Run the chat as two server processes that share a database and a Redis of their own.

``python serve_redis.py`` serves it on http://127.0.0.1:8000/ and http://127.0.0.1:8001/; ``python serve_redis.py 8080``
on 8080 and 8081. People on the one talk with people on the other. A server that ends is started again: kill one, and
watch its pages come back. Ctrl-C stops everything.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import django
import trio
from django.core.management import call_command
from serve import HERE, HOST, port_number, refuse_taken_port

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder of all examples

from private_redis import private_redis

#: Seconds that pages have to say goodbye when a server is stopped.
GRACE = 1


async def keep_serving(port: int) -> None:
    """Run one server, for ever. A cancellation stops it, and waits for it."""
    # Workers 0: it serves in the process that is started here, and not in a child of it.
    command = [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--workers", "0"]
    command += ["--bind", f"{HOST}:{port}", "--graceful-timeout", str(GRACE), "mysite.asgi:application"]

    async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
        # A session of its own: Ctrl-C is for the parent, which stops the servers, and Redis after them.
        await trio.run_process(
            command, check=False, start_new_session=True, deliver_cancel=stop, task_status=task_status
        )

    while True:
        async with trio.open_nursery() as nursery:
            process = await nursery.start(run)
            say(f"The chat is on http://{HOST}:{port}/  (process {process.pid})")
        say(f"The server on port {port} has ended with code {process.returncode}; starting it again.")
        await trio.sleep(0.5)


async def stop(server: trio.Process) -> None:
    """Have a server end as by Ctrl-C, so that its pages say goodbye; or as by ``kill -9`` if it does not."""
    server.send_signal(signal.SIGINT)
    await trio.sleep(5 * GRACE)
    server.kill()


async def until_stopped(*ports: int) -> None:
    """Run a server on each port, until Ctrl-C or SIGTERM."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            for port in ports:
                nursery.start_soon(keep_serving, port)
            say("Ctrl-C stops everything.")
            async for _ in signals:
                nursery.cancel_scope.cancel()


def say(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Start Redis, migrate the database, and serve."""
    parser = argparse.ArgumentParser(description="Serve the chat example with two hypercorn processes and a Redis.")
    parser.add_argument("port", type=port_number, nargs="?", default=8000, help="the first of the two; 8000 by default")
    port = parser.parse_args().port
    if port == 65535:
        parser.error("the second server is on the next port: the first can be 65534 at the most")
    for each in port, port + 1:
        refuse_taken_port(each)

    os.chdir(HERE)
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    with private_redis() as url:
        os.environ["CHAT_REDIS"] = url
        django.setup()
        call_command("migrate", verbosity=0)
        trio.run(until_stopped, port, port + 1)
    say("Stopped.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
