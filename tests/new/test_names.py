"""The names and folders that ``trio-channels new`` takes, and those that it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trio_channels.exceptions import ConfigurationError
from trio_channels.new import TEMPLATE, make_project
from trio_channels.runner import main


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-site", "try 'my_site'"),
        ("My Site", "try 'my_site'"),
        ("2nd_site", "try 'nd_site'"),
        ("../site", "try 'site'"),
        ("/tmp/site", "try 'tmp_site'"),
        ("site.py", "try 'site_py'"),
        ("site\n", "try 'site'"),
        ("café", "try 'caf'"),
        ("", "try 'mysite'"),
        ("_", "try 'mysite'"),
        ("a" * 41, f"try '{'a' * 40}'"),
        ("class", "is a word of Python's own"),
        ("chat", "a folder or module 'chat' of its own"),
        ("tests", "a folder or module 'tests' of its own"),
        ("json", "there is a Python module 'json' already"),
        ("django", "there is a Python module 'django' already"),
        ("sys", "there is a Python module 'sys' already"),
    ],
)
def test_bad_name_is_refused(workplace: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        make_project(name)
    assert list(workplace.iterdir()) == []


def test_names_of_the_template_are_refused() -> None:
    for path in TEMPLATE.iterdir():
        name = path.name.removesuffix(".py-tpl")
        if name.isidentifier() and name != "project_name" and name.islower():
            with pytest.raises(ConfigurationError):
                make_project(name)


def test_folder_with_files_is_left_alone(workplace: Path) -> None:
    (workplace / "mysite").mkdir()
    (workplace / "mysite" / ".git").touch()
    with pytest.raises(ConfigurationError, match="mysite is not empty; nothing was written"):
        make_project("mysite")
    assert names_in(workplace) == ["mysite/.git"]


@pytest.mark.parametrize("kind", ["file", "broken link", "below a file"])
def test_place_that_is_no_folder_is_left_alone(workplace: Path, kind: str) -> None:
    place = workplace / "mysite"
    if kind == "broken link":
        place.symlink_to("nowhere")
    else:
        place.write_text("mine")
    with pytest.raises(ConfigurationError, match="cannot make the project in"):
        make_project("mysite", place / "below" if kind == "below a file" else None)
    assert place.is_symlink() or place.read_text() == "mine"


def test_empty_folder_is_taken(workplace: Path) -> None:
    assert make_project("mysite", Path()) == Path()
    assert (workplace / "manage.py").exists()


def test_name_is_filled_in(workplace: Path) -> None:
    place = make_project("first_site", workplace / "deep" / "down")
    files = names_in(place)
    assert {"manage.py", "first_site/settings.py", "deploy/first_site.service", ".env.example"} <= set(files)
    texts = {name: (place / name).read_text() for name in files}
    marks = re.compile(r"\{\{ (project_name|secret_key) \}\}|-tpl|mysite")
    assert [name for name, text in texts.items() if marks.search(name + text)] == []
    assert "DJANGO_SETTINGS_MODULE" in texts["manage.py"]


def test_each_project_has_a_secret_key_of_its_own(workplace: Path) -> None:
    first, second = make_project("first_site"), make_project("second_site")
    first_keys, second_keys = (
        re.findall(r'SECRET_KEY = "(django-insecure-[^"]{50})"', (place / place.name / "settings.py").read_text())
        for place in (first, second)
    )
    assert len(first_keys) == len(second_keys) == 1
    assert first_keys != second_keys


def test_command_tells_what_it_has_made(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["new", "mysite"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == "mysite is made; mysite/README.md says how to run it\n"
    assert (workplace / "mysite" / "manage.py").exists()


def test_command_tells_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["new", "my-site"])
    assert ended.value.code == 2
    assert "trio-channels new: error: expected a name" in capsys.readouterr().err
