#!/usr/bin/env python
"""Run the gallery: a private Redis, a server and a worker, each a process of its own.

``python serve.py`` serves it on http://127.0.0.1:8000/, ``python serve.py 8080`` on another port. A process that ends
is started again. Ctrl-C stops everything. With a Redis of one's own it is short for these commands::

    export GALLERY_REDIS=redis://localhost:6379
    python manage.py migrate
    python manage.py runworker thumbnails
    hypercorn --worker-class trio mysite.asgi:application
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import django
import trio
from django.conf import settings
from django.core.management import call_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder of all examples

from private_redis import private_redis

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
#: Seconds that pages have to say goodbye, and thumbnails to be finished, before a process is killed.
GRACE = 10


async def keep_running(name: str, *arguments: str) -> None:
    """Run a process, for ever. A cancellation stops it, and waits for it."""

    async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
        # A session of its own: Ctrl-C is for the parent, which stops the processes, and Redis after them.
        await trio.run_process(
            [sys.executable, "-m", *arguments],
            check=False,
            start_new_session=True,
            deliver_cancel=stop,
            task_status=task_status,
        )

    while True:
        async with trio.open_nursery() as nursery:
            process = await nursery.start(run)
            say(f"{name} (process {process.pid})")
        say(f"{name} has ended with code {process.returncode}; it is started again.")
        await trio.sleep(0.5)


async def stop(process: trio.Process) -> None:
    """As by Ctrl-C; as by ``kill -9`` if that does not help."""
    process.send_signal(signal.SIGINT)
    await trio.sleep(GRACE)
    process.kill()


async def until_stopped(port: int) -> None:
    """Run the server and the worker until Ctrl-C or SIGTERM."""
    # Workers 0: it serves in the process that is started here, and not in a child of it.
    server = ["hypercorn", "--worker-class", "trio", "--workers", "0", "--graceful-timeout", "1"]
    server += ["--bind", f"{HOST}:{port}", "mysite.asgi:application"]
    # What a worker that was killed had in hand is done again after 5 seconds.
    worker = ["django", "runworker", "thumbnails", "--concurrency", "4", "--claim-after", "5"]
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_running, f"The gallery is on http://{HOST}:{port}/", *server)
            nursery.start_soon(keep_running, "A worker makes the thumbnails", *worker)
            say("Ctrl-C stops everything.")
            async for _ in signals:
                nursery.cancel_scope.cancel()


def say(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Start Redis, migrate the database, and serve."""
    parser = argparse.ArgumentParser(description="Serve the thumbnail example: a Redis, a server and a worker.")
    parser.add_argument("port", type=int, nargs="?", default=8000, choices=range(1, 65536), metavar="PORT")
    port = parser.parse_args().port

    os.chdir(HERE)
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    with private_redis() as url:
        os.environ["GALLERY_REDIS"] = url
        django.setup()
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        call_command("migrate", verbosity=0)
        trio.run(until_stopped, port)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
