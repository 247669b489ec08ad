"""The project's files for containers, nginx and systemd, as far as they can be checked without a Docker daemon."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from trio_channels.new import make_project

from ..ports import free_port
from ..process import ROOT

ANALYZE = shutil.which("systemd-analyze")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project("newsite", tmp_path_factory.mktemp("new") / "newsite")


@pytest.fixture(scope="module")
def compose(project: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((project / "compose.yaml").read_text())
    return loaded


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with its arguments."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def variables(text: str) -> set[str]:
    """The variables that a file of environment variables sets, or mentions in a comment."""
    return set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))


def test_image_copies_what_is_there(project: Path) -> None:
    parts = instructions((project / "Dockerfile").read_text())
    assert parts[0][0] == "FROM"
    assert {name for name, _ in parts} == {
        "FROM",
        "ENV",
        "RUN",
        "WORKDIR",
        "COPY",
        "USER",
        "EXPOSE",
        "HEALTHCHECK",
        "CMD",
    }
    copied = [source for name, rest in parts if name == "COPY" for source in rest.split()[:-1]]
    assert copied == ["requirements.txt", "*.whl", "."]
    assert (project / copied[0]).exists()
    # Without rights of root, and not before everything is installed.
    names = [name for name, _ in parts]
    assert max(place for place, name in enumerate(names) if name in ("RUN", "COPY")) < names.index("USER")


def test_image_serves_and_looks_after_itself(project: Path) -> None:
    parts = dict(instructions((project / "Dockerfile").read_text()))
    command = json.loads(parts["CMD"])
    assert command[:3] == ["trio-channels", "serve", "newsite.asgi:application"]
    from trio_channels.runner.cli import parse

    options = parse(command[1:])
    assert (options.config.bind, options.workers) == ([f"0.0.0.0:{parts['EXPOSE']}"], 2)
    kind, _, probe = parts["HEALTHCHECK"].partition(" ")
    program, flag, code = json.loads(probe)
    assert (kind, program, flag) == ("CMD", "python", "-c")
    compile(code, "HEALTHCHECK", "exec")


def test_image_has_no_secrets_in_it(project: Path) -> None:
    ignored = (project / ".dockerignore").read_text().split()
    assert {".env", ".git", "db.sqlite3*", "venv"} <= set(ignored)
    assert "DJANGO_DEBUG=0" in (project / "Dockerfile").read_text()  # an empty secret key is refused, and no DEBUG
    assert {"/.env", "/db.sqlite3*", "/venv/"} <= set((project / ".gitignore").read_text().split())


def test_services_fit_together(project: Path, compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"prepare", "site", "proxy", "database", "redis"}
    assert set(compose) == {"x-site", "services", "volumes"}
    for name, service in services.items():
        assert {"image", "build"} & set(service), name
        for other in service.get("depends_on", ()):
            assert other in services
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (project / source).exists() if source.startswith("./") else source in compose["volumes"]
    waits = services["prepare"]["depends_on"] | services["site"]["depends_on"]
    assert waits["database"]["condition"] == "service_healthy"
    assert "healthcheck" in services["database"]
    assert waits["prepare"]["condition"] == "service_completed_successfully"
    assert "restart" not in services["prepare"]


def test_services_get_what_the_settings_read(project: Path, compose: dict[str, Any]) -> None:
    text = (project / "newsite" / "settings.py").read_text()
    read = set(re.findall(r'(?:environ\.get|words)\("([A-Z_]+)"', text))
    documented = variables((project / ".env.example").read_text())
    assert read - {"DJANGO_DEBUG"} == documented - {"POSTGRES_PASSWORD"}
    given = compose["services"]["site"]["environment"]
    assert set(given) == read & {"DATABASE_URL", "REDIS_URL", "TRUSTED_PROXIES"}
    assert "@database/newsite" in given["DATABASE_URL"]
    assert compose["services"]["database"]["environment"]["POSTGRES_USER"] == "newsite"


def test_commands_of_the_services_exist(compose: dict[str, Any]) -> None:
    commands = re.findall(r"manage\.py (\w+)", compose["services"]["prepare"]["command"][2])
    assert commands == ["migrate", "collectstatic"]


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_takes_its_configuration(project: Path, tmp_path: Path) -> None:
    written = (project / "deploy" / "nginx.conf").read_text().replace("listen 80", "listen 127.0.0.1:1")
    logs = f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}"
    (tmp_path / "nginx.conf").write_text(f"{logs} http {{ access_log off; {written} }}")
    done = subprocess.run(
        [str(NGINX), "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "syntax is ok" in done.stderr


def listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(30)
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def site_behind_nginx(project: Path, tmp_path: Path) -> Iterator[str]:
    """The address of nginx, before a site that answers with the scheme that it is told."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers.get("X-Forwarded-Proto", "").encode())

        def log_message(self, *_: Any) -> None:
            pass

    port = free_port()
    with HTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever).start()
        written = (project / "deploy" / "nginx.conf").read_text().replace("listen 80", f"listen 127.0.0.1:{port}")
        written = written.replace("site:8000", f"127.0.0.1:{server.server_port}")
        folders = " ".join(
            f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}} "
            f"http {{ access_log off; {folders} {written} }}"
        )
        nginx = subprocess.Popen([str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
        try:
            while nginx.poll() is None and not listens(port):
                with suppress(subprocess.TimeoutExpired):
                    nginx.wait(0.02)
            yield f"http://127.0.0.1:{port}/"
        finally:
            nginx.terminate()
            nginx.wait()
            server.shutdown()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_https_of_a_proxy_before_nginx_is_passed_on(site_behind_nginx: str) -> None:
    told = {}
    for given in ("", "http", "https", "https, http", "ftp"):
        request = Request(site_behind_nginx, headers={"X-Forwarded-Proto": given} if given else {})
        with urlopen(request, timeout=30) as answer:
            told[given] = answer.read().decode()
    assert told == {"": "http", "http": "http", "https": "https", "https, http": "http", "ftp": "http"}


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(project: Path, tmp_path: Path) -> None:
    unit = tmp_path / "newsite.service"
    written = (project / "deploy" / "newsite.service").read_text()
    # systemd looks whether the command exists.
    unit.write_text(written.replace("/srv/newsite/venv/bin/trio-channels", sys.executable))
    done = subprocess.run([str(ANALYZE), "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unit_is_the_documented_one(project: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    documented = re.findall(r"```ini\n(\[Unit\].*?)```", page, re.DOTALL)[0]
    written = (project / "deploy" / "newsite.service").read_text()
    only_here = set(written.replace("newsite", "mysite").splitlines()) - set(documented.splitlines())
    assert only_here == {
        "Environment=DJANGO_DEBUG=0",
        "EnvironmentFile=/srv/mysite/.env",
        "ExecStart=/srv/mysite/venv/bin/trio-channels serve mysite.asgi:application --config deploy/hypercorn.toml",
    }
    assert tomllib.loads((project / "deploy" / "hypercorn.toml").read_text())["bind"] == ["unix:/run/newsite/http.sock"]
