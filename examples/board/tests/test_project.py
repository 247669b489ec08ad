"""The project: Django's own checks."""

from django.core.management import call_command


def test_check_finds_nothing() -> None:
    call_command("check", fail_level="WARNING")


def test_migrations_are_those_of_the_models(board, capsys) -> None:
    call_command("makemigrations", check=True, dry_run=True)
    assert "No changes detected" in capsys.readouterr().out
