#!/usr/bin/env python
"""Run the gallery: a private Redis, a server and a worker, each in a process.

``python serve.py`` serves it on http://127.0.0.1:8000/, ``python serve.py 8080`` on another port. A process that ends
is started again. Ctrl-C stops everything. With your own Redis, these commands do the same::

    export GALLERY_REDIS=redis://localhost:6379
    python manage.py migrate
    python manage.py runworker thumbnails --max-deliveries 4
    trio-channels serve mysite.asgi:application
"""

import argparse
import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder of all examples

from private_redis import private_redis
from processes import HOST, port_number, refuse_taken_port, run, say, server, wait_with_signals

HERE = Path(__file__).resolve().parent
# After 5 seconds another worker handles the messages of a killed one.
WORKER = ("django", "runworker", "thumbnails", "--concurrency", "4", "--claim-after", "5", "--max-deliveries")


def main() -> None:
    """Start Redis, migrate the database, and serve."""
    parser = argparse.ArgumentParser(description="Serve the thumbnail example: a Redis, a server and a worker.")
    parser.add_argument("port", type=port_number, nargs="?", default=8000, help="8000 by default")
    port = parser.parse_args().port
    refuse_taken_port(port)
    wait_with_signals()

    os.chdir(HERE)
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    with private_redis() as url:
        os.environ["GALLERY_REDIS"] = url
        django.setup()
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        call_command("migrate", verbosity=0)
        worker = [*WORKER, str(settings.GALLERY_MAX_DELIVERIES)]
        say(f"For manage.py in another terminal: export GALLERY_REDIS={url}")
        run((f"The gallery is on http://{HOST}:{port}/", server(port)), ("A worker makes the thumbnails", worker))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
