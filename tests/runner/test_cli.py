"""The command line: its options, files of options, and the errors of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_channels.runner.cli import parse

APP = "mysite.asgi:application"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error message of a wrong command line."""
    with pytest.raises(SystemExit) as ended:
        parse(["serve", APP, *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_without_options_it_is_one_process_on_hypercorns_own_port() -> None:
    options = parse(["serve", APP])
    assert (options.application, options.workers) == (APP, 1)
    assert options.config.bind == ["127.0.0.1:8000"]
    assert options.config.worker_class == "trio"
    assert options.arguments == ("serve", APP)


def test_without_arguments_it_reads_the_process_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["trio-channels", "serve", APP, "-w", "3"])
    assert parse().workers == 3


def test_every_option_of_hypercorn_can_stand_in_a_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "hypercorn.toml"
    file.write_text('bind = ["[::1]:80"]\nworkers = 4\nh2_max_concurrent_streams = 7\nroot_path = "/a/"')
    config = parse(["serve", APP, "--config", str(file)]).config
    assert (config.bind, config.workers, config.h2_max_concurrent_streams) == (["[::1]:80"], 4, 7)
    assert config.root_path == "/a"


def test_or_in_a_python_file_or_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hypercorn_settings.py").write_text("keep_alive_timeout = 5 * 60\n")
    monkeypatch.syspath_prepend(tmp_path)
    for place in (f"file:{tmp_path}/hypercorn_settings.py", "python:hypercorn_settings"):
        assert parse(["serve", APP, "--config", place]).config.keep_alive_timeout == 300


def test_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "hypercorn.toml"
    file.write_text('bind = "127.0.0.1:1"\nworkers = 4\naccesslog = "a"\nroot_path = "/a"')
    arguments = ["-c", str(file), "-b", "unix:/a", "-b", "127.0.0.1:2", "-w", "2", "--access-log", "-"]
    config = parse(["serve", APP, *arguments, "--root-path", "/b/"]).config
    assert config.root_path == "/b"
    assert (config.bind, config.workers, config.accesslog) == (["unix:/a", "127.0.0.1:2"], 2, "-")


def test_unknown_option_is_refused_with_the_nearest_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "hypercorn.toml"
    file.write_text("graceful_timout = 3")
    assert "did you mean 'graceful_timeout'?" in refusal(capsys, "--config", str(file))


@pytest.mark.parametrize("place", ["nowhere.toml", "file:nowhere.py", "python:nowhere.module"])
def test_file_that_is_not_there_is_told(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"cannot read the configuration {place!r}" in refusal(capsys, "--config", place)


def test_file_that_is_no_toml_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "hypercorn.toml"
    file.write_text("bind: 1")
    assert "cannot read the configuration" in refusal(capsys, "--config", str(file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "workers must be an int of at least 1"),
        (["--workers", "many"], "invalid int"),
        (["--root-path", "app"], "root_path must begin with a slash, such as '/app'; got 'app'"),
        (["--root-path", "/%C3%A9"], "root_path must not be percent-encoded; got '/%C3%A9', expected '/é'"),
        (["--certfile", "a"], "got only certfile: add keyfile"),
        (["--keyfile", "a"], "got only keyfile: add certfile"),
    ],
)
def test_impossible_option_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refusal(capsys, *arguments)


def test_reloader_is_not_for_this_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "hypercorn.toml"
    file.write_text("use_reloader = true")
    assert "runserver" in refusal(capsys, "--config", str(file))


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--version"])
    assert capsys.readouterr().out.startswith("trio-channels ")
