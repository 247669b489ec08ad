"""The form of an act: input that it refuses, and the acts that it makes."""

from __future__ import annotations

import pytest

from trio_channels.inspector.forms import ActForm


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"kind": "explode", "target": "x"}, "Select a valid choice"),
        ({"kind": "send_group", "target": ""}, "This field is required"),
        ({"kind": "send_group", "target": "no group", "message": '{"type": "x"}'}, "Expected the name of a group"),
        ({"kind": "send_group", "target": "trio_channels.orders", "message": '{"type": "x"}'}, "Expected the name"),
        ({"kind": "send_group", "target": "g:presence", "message": '{"type": "x"}'}, "Expected the name"),
        ({"kind": "send_group", "target": "room", "message": "text"}, "Expected JSON"),
        ({"kind": "send_group", "target": "room", "message": "[" * 5000}, "Expected JSON"),
        ({"kind": "send_group", "target": "room", "message": "[1]"}, "Expected an object with a type"),
        ({"kind": "send_group", "target": "room", "message": '{"type": 3}'}, "Expected an object with a type"),
        ({"kind": "send_group", "target": "room", "message": f'{{"type": "x", "n": {2**70}}}'}, "may hold"),
        ({"kind": "send_group", "target": "room", "message": '{"type": "x"}', "layer": "none"}, "no such entry"),
        ({"kind": "close_channel", "target": "a b"}, "Expected the name of a group or channel"),
        ({"kind": "close_user", "target": "1", "code": "1006"}, "Expected a close code"),
        ({"kind": "close_user", "target": "1", "code": "text"}, "Enter a whole number"),
        ({"kind": "close_user", "target": "1", "reason": "ü" * 62}, "Expected at most 123 bytes"),
        ({"kind": "retry", "target": "jobs", "ids": "../../x"}, "Expected at most 100 ids"),
        ({"kind": "retry", "target": "jobs", "ids": "1 " * 101}, "Expected at most 100 ids"),
    ],
)
def test_wrong_act_is_refused(form: dict[str, str], error: str) -> None:
    checked = ActForm(form)
    assert not checked.is_valid()
    assert error in str(checked.errors)


@pytest.mark.parametrize(
    ("form", "act"),
    [
        ({"kind": "close_user", "target": "7"}, "close all connections of the user '7' with 4001"),
        ({"kind": "close_channel", "target": "a!b", "code": "1008"}, "close the connection 'a!b' with 1008"),
        ({"kind": "retry", "target": "jobs"}, "retry all dead letters of the channel 'jobs' of the layer 'default'"),
        (
            {"kind": "retry", "target": "jobs", "ids": "1-0 2-0"},
            "retry dead letters 1-0 2-0 of the channel 'jobs' of the layer 'default'",
        ),
        (
            {"kind": "send_group", "target": "room", "message": '{"type": "room.\\u001b[2J"}'},
            "send a message of type 'room.\\x1b[2J' to the group 'room' of the layer 'default'",
        ),
    ],
)
def test_act_says_what_it_does(form: dict[str, str], act: str) -> None:
    checked = ActForm(form)
    assert checked.is_valid(), checked.errors
    assert str(checked.act()) == act


def test_user_of_any_layer_can_be_closed(settings: object) -> None:
    assert ActForm({"kind": "close_user", "target": "7", "layer": "none"}).is_valid()
