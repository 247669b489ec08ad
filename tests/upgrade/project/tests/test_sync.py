from django.core.management import call_command
from django.test import Client


def test_view():
    assert Client().get("/say/lobby/", {"text": "hello"}).content == b"said"


def test_command(capsys):
    call_command("announce", "hello")
    assert capsys.readouterr().out == "announced\n"
