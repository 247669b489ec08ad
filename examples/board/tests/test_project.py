"""The project: Django's own checks."""

from board.models import Board
from django.core.management import call_command


def test_check_finds_nothing(trio_db) -> None:
    call_command("check", fail_level="WARNING")


def test_demo_is_for_development_only(trio_db, capsys) -> None:
    call_command("demo")  # tests have no DEBUG
    assert "there is no demo" in capsys.readouterr().out
    assert not Board.objects.exists()


def test_migrations_are_those_of_the_models(board, capsys) -> None:
    call_command("makemigrations", check=True, dry_run=True)
    assert "No changes detected" in capsys.readouterr().out
