#!/usr/bin/env python
"""Run the board: ``python serve.py`` serves it on http://127.0.0.1:8000/, ``python serve.py 8080`` on another port.

It does the same as these commands in this folder::

    python manage.py migrate
    python manage.py demo
    trio-channels serve mysite.asgi:application --bind 127.0.0.1:8000
"""

import argparse
import os
import sys
from pathlib import Path

import django
from django.core.management import call_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder of all examples

from processes import HOST, port_number, refuse_taken_port, server

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Migrate the database, make the demo, print the address, and serve."""
    parser = argparse.ArgumentParser(description="Serve the board example.")
    parser.add_argument("port", type=port_number, nargs="?", default=8000, help="8000 by default")
    port = parser.parse_args().port
    refuse_taken_port(port)

    os.chdir(HERE)
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("demo")

    print(f"The board is on http://{HOST}:{port}/  (Ctrl-C stops it)", flush=True)  # noqa: T201
    # In place of this process, which so gets every signal.
    os.execv(sys.executable, [sys.executable, "-m", *server(port)])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
