"""``manage.py topics``: which topics it finds, the list, the documents, and the check for CI."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from trio_channels.exceptions import ConfigurationError
from trio_channels.topics import Topic, event
from trio_channels.topics.description import describe, schemas_of
from trio_channels.topics.typescript import declarations

from . import described


def run(settings: Any, *arguments: str, application: str = "application") -> str:
    settings.ASGI_APPLICATION = f"tests.topics.described.{application}"
    output = io.StringIO()
    call_command("topics", *arguments, stdout=output)
    return output.getvalue()


def test_list_has_addresses_and_events(settings: Any) -> None:
    assert run(settings).splitlines() == [
        "board:<slug:team>:<int:number>  tests.topics.described.Board",
        "    at /a/<slug:x>/socket",
        *(f"    receives {name}" for name in ("bare", "bytes/and~more", "count", "draw", "set", "stream")),
        *(
            f"    sends {name}"
            for name in ("cleared", "drawn", "odd", "pair", "raw", "presence_state", "presence_diff")
        ),
        "plain  tests.topics.described.Plain",
        "    at /a/<slug:x>/socket",
        "    at /b/socket",
    ]


def test_sockets_that_no_route_shows_are_found(settings: Any) -> None:
    listed = run(settings, application="hidden")
    assert "tests.topics.described.Board\n    receives" in listed
    document = json.loads(run(settings, "--asyncapi", application="hidden"))
    assert "x-sockets" not in document["channels"]["Plain"]


@pytest.mark.parametrize("application", ["hidden", "without"])
def test_project_without_topics(settings: Any, monkeypatch: pytest.MonkeyPatch, application: str) -> None:
    monkeypatch.setattr("trio_channels.topics.listing.applications", set())
    assert run(settings, application=application) == "The routes of ASGI_APPLICATION lead to no topics.\n"


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [node["$ref"]] if "$ref" in node else [ref for value in node.values() for ref in references(value)]
    return [ref for value in node for ref in references(value)] if isinstance(node, list) else []


def resolved(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def test_asyncapi_document_has_channels_and_operations(settings: Any) -> None:
    document = json.loads(run(settings, "--asyncapi", "--title", "Boards", "--api-version", "2.1"))
    assert document["info"]["title"] == "Boards"
    assert document["info"]["version"] == "2.1"
    board = document["channels"]["Board"]
    assert board["address"] == "board:{team}:{number}"
    assert board["parameters"] == {"team": {"description": "slug"}, "number": {"description": "int"}}
    assert board["description"] == "A board on which a team draws."
    assert board["x-sockets"] == ["/a/<slug:x>/socket"]
    assert "parameters" not in document["channels"]["Plain"]
    messages = board["messages"]
    assert messages["draw.push"] == {"name": "draw", "payload": {"$ref": "#/components/schemas/Draw"}}
    assert messages["bytes/and~more.push"]["contentType"] == "application/octet-stream"
    assert messages["bytes/and~more.reply"]["contentType"] == "application/octet-stream"
    empty = {"type": "object", "properties": {}, "additionalProperties": False}
    assert messages["cleared.sent"]["payload"] == empty  # as which None is sent
    assert messages["count.reply"]["payload"]["properties"]["status"] == {"enum": ["ok", "end"]}
    either = messages["draw.reply"]["payload"]["properties"]["response"]["anyOf"]
    assert either == [{"$ref": "#/components/schemas/Drawing"}, empty]
    operation = document["operations"]["Board.receive.draw"]
    assert operation["action"] == "receive"
    assert operation["reply"]["messages"][0] == {"$ref": "#/channels/Board/messages/draw.reply"}
    assert document["operations"]["Board.send.drawn"]["action"] == "send"
    assert all(resolved(document, reference) for reference in references(document))


def test_typescript_has_the_types_of_topics(settings: Any) -> None:
    text = run(settings, "--typescript")
    for expected in (
        "topic: `board:${string}:${number}`;",
        'topic: "plain";',
        "params: Record<string, unknown>;",
        "joined: Drawing;",
        "draw: { payload: Draw; reply: Drawing | Record<string, never> };",
        'count: { payload: "down" | "up"; replies: number };',
        '"bytes/and~more": { payload: ArrayBuffer; reply: ArrayBuffer };',
        "bare: { payload: unknown; reply: unknown };",
        "export type Point = [number, number, (string | null)?];",
        "pair: [number, string];",
        "odd: number;",
        "presence_state: Record<string, PresenceEntry>;",
    ):
        assert expected in text
    assert re.search(r"/\*\*\n \* A square\.\n \*\n \* Its sides are equal: \* / is no end\.\n \*/", text)


def test_output_is_written_and_checked(settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "topics.ts"
    arguments = ("--typescript", "--output", str(file))
    with pytest.raises(CommandError, match="is not up to date"):
        run(settings, *arguments, "--check")
    assert run(settings, *arguments) == ""
    run(settings, *arguments, "--check")
    assert file.read_text() == run(settings, "--typescript")
    file.write_text("// other\n")
    with pytest.raises(CommandError, match="is not up to date: run the command again without --check"):
        run(settings, *arguments, "--check")
    assert file.read_text() == "// other\n"


def test_check_needs_a_file(settings: Any) -> None:
    with pytest.raises(CommandError, match="--check expects --output FILE"):
        run(settings, "--asyncapi", "--check")


def test_wrong_application_is_told(settings: Any) -> None:
    with pytest.raises(CommandError, match="ASGI_APPLICATION"):
        run(settings, application="missing")


def test_type_without_a_schema_is_named() -> None:
    class Foreign(Topic):
        pattern = "foreign"

        @event("give")
        async def give(self, payload: Any) -> Path:
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match="the type of the reply of Foreign 'give' has no schema"):
        schemas_of(describe({Foreign: []}), "{name}")


def test_classes_of_one_name_are_told_apart() -> None:
    def make(text: str) -> type[Topic]:
        class Plain(Topic):
            pattern = text

        return Plain

    first, second = make("a`${x}\\"), make("b:<path:rest>`${")
    second.__module__ = "other.module"
    described_topics = describe({first: [], second: []})
    assert len({each.name for each in described_topics}) == 2
    text = declarations(described_topics)
    assert 'topic: "a`${x}\\\\";' in text
    assert "topic: `b:${string}\\`\\${`;" in text


@pytest.mark.parametrize("sends", [["a"], {"": int}, {1: int}, {"a": Path}])
def test_sent_events_must_have_types(sends: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Mistaken\.sends"):
        type("Mistaken", (Topic,), {"pattern": "a", "sends": sends})


def test_topics_of_the_tests_are_described() -> None:
    assert described.Board.sends["cleared"] is None
