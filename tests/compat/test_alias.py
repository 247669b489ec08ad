"""The alias is installed only where it is wanted, and refuses to hide Channels unless it is told to."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trio_channels import compat
from trio_channels.compat import alias, names
from trio_channels.exceptions import ConfigurationError

ROOT = Path(__file__).parents[2]
INSIDE = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "trio_channels.compat.pytest_plugin")


@pytest.fixture(autouse=True)
def without_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("channels", "channels_redis")]:
        monkeypatch.delitem(sys.modules, name)


def python(*arguments: str, **environment: str) -> str:
    """The output of Python, errors included."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_nothing_happens_without_opting_in() -> None:
    code = "import django, sys; django.setup(); from trio_channels import compat; print(compat.installed())"
    output = python("-c", f"{code}; print('trio_asyncio' in sys.modules)", DJANGO_SETTINGS_MODULE="tests.settings")
    assert output.split() == ["False", "False"]


@pytest.mark.parametrize("package", ["channels", "channels_redis"])
def test_installed_channels_is_not_hidden(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{package}.py").touch()
    other = {"channels": "channels_redis", "channels_redis": "channels"}[package]
    find = compat.PathFinder.find_spec
    hidden = {other}
    monkeypatch.setattr(
        compat.PathFinder, "find_spec", lambda name, *_, **more: None if name in hidden else find(name, *_, **more)
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"give the name '{package}' .* installed, in .*{package}.py"):
        compat.install()
    assert not compat.installed()


def test_imported_channels_is_refused_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "channels", pytest)
    with pytest.raises(
        ConfigurationError, match=r"imported already, from .*Call trio_channels\.compat\.install\(\) ea"
    ):
        compat.install(shadow=True)
    assert not compat.installed()


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio_asyncio", None)  # type: ignore[arg-type]
    monkeypatch.delitem(
        sys.modules, "trio_channels.compat.crossing", raising=False
    )  # another test may have imported it
    monkeypatch.delattr(compat, "crossing", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'trio-channels\[compat\]'"):
        compat.install(shadow=True)
    assert not compat.installed()


@pytest.mark.slow
@pytest.mark.parametrize(("value", "installed"), [("True", True), ("'shadow'", True), ("False", False)])
def test_setting_installs_it(value: str, installed: bool) -> None:
    code = f"""
import importlib.machinery, django, sys
from django.conf import settings
find = importlib.machinery.PathFinder.find_spec
if {value} == True:  # as if Channels was not installed
    absent = ("channels", "channels_redis")
    importlib.machinery.PathFinder.find_spec = lambda name, *_, **more: (
        None if name in absent else find(name, *_, **more)
    )
settings.configure(INSTALLED_APPS=["trio_channels"], TRIO_CHANNELS={{"CHANNELS_ALIAS": {value}}})
django.setup()
from trio_channels import compat
compat.install(shadow=True) if compat.installed() else None
print(compat.installed(), sys.meta_path.count(compat.alias.FINDER))
"""
    assert python("-c", code).split() == [str(installed), str(int(installed))]


@pytest.mark.slow
def test_unknown_value_of_the_setting_is_reported_by_a_check() -> None:
    code = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["trio_channels"], TRIO_CHANNELS={"CHANNELS_ALIAS": "maybe"})
django.setup()
from django.core.management import call_command
call_command("check")
"""
    assert "TRIO_CHANNELS['CHANNELS_ALIAS'] must be True, False, or 'shadow'" in python("-c", code)


@pytest.mark.parametrize("name", ["os", "trio_channels.layers", "channelsmultiplexer", "channel"])
def test_other_modules_are_left_alone(name: str) -> None:
    assert alias.FINDER.find_spec(name) is None


def test_missing_module_says_why() -> None:
    with pytest.raises(
        ModuleNotFoundError, match=r"^No module named 'channels\.nothing': trio_channels\.compat has"
    ) as it:
        alias.FINDER.find_spec("channels.nothing")
    assert it.value.name == "channels.nothing"


@pytest.mark.parametrize("name", [name for name in names.full_names() if name.count(".") == 2])
def test_each_name_is_an_object_or_says_why_not(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    if module not in names.defined() or attribute in alias.REPLACED.get(module, ("", ()))[1]:
        return  # a member of a class; or in test_inside
    why = names.why_missing(name)
    if why:
        with pytest.raises(ImportError, match=r"^trio_channels\.compat has no ") as raised:
            alias.find(module, attribute)
        assert why in str(raised.value)
    else:
        place, _, here = names.place_of(name).rpartition(".")
        assert alias.find(module, attribute) is getattr(importlib.import_module(place), here)


@pytest.mark.parametrize(("name", "definition"), names.imported().items())
def test_name_that_a_module_has_imported(name: str, definition: str) -> None:
    module, _, attribute = name.rpartition(".")
    place, _, original = definition.rpartition(".")
    assert place.startswith("asgiref.") or original in names.defined()[place]
    if attribute in alias.REPLACED.get(place, ("", ()))[1]:
        return  # in test_inside
    if names.why_missing(definition):
        with pytest.raises(ImportError, match=r"^trio_channels\.compat has no "):
            alias.find(module, attribute)
    else:
        here = importlib.import_module(place) if place.startswith("asgiref.") else None
        assert alias.find(module, attribute) is (getattr(here, original) if here else alias.find(place, original))


def test_name_that_channels_has_not_either() -> None:
    with pytest.raises(AttributeError):
        alias.find("channels.consumer", "Nothing")
    with pytest.raises(AttributeError, match=r"module 'channels\.nothing' has no attribute 'Name'"):
        alias.find("channels.nothing", "Name")


def test_finder_has_a_telling_repr() -> None:
    assert repr(alias.FINDER) == "<the modules of Channels as trio_channels>"


@pytest.mark.slow
def test_tests_of_asyncio_are_left_to_their_plugin(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        """
import asyncio

def pytest_configure(config):
    config.addinivalue_line("markers", "asyncio: runs on asyncio")

def pytest_pyfunc_call(pyfuncitem):
    asyncio.run(pyfuncitem.obj())
    return True
"""
    )
    (tmp_path / "test_it.py").write_text(
        """
import asyncio, pytest

@pytest.mark.asyncio
async def test_it():
    await asyncio.sleep(0)
"""
    )
    assert "1 passed" in python("-m", "pytest", "-q", "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path))


@pytest.mark.slow
def test_inside(request: pytest.FixtureRequest) -> None:
    """The tests of the folder ``inside``, in a process where the alias is installed."""
    output: Any = python(*INSIDE, "tests/compat/inside")
    assert " passed" in output.splitlines()[-1], output
    assert "failed" not in output.splitlines()[-1], output
