"""The check of the built documentation finds each kind of fault."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import check_docs
import docs_objects

sys.path.pop(0)


def signature(text: str) -> str:
    return f'<dl class="py function">\n<dt class="sig sig-object py" id="x"><span>{text}</span></dt></dl>'


@pytest.mark.parametrize(
    "text",
    [
        "f(_hidden: int)",
        "f(x: _Private)",
        "trio_channels._http.f()",
        "f(x: list[TypeAliasForwardRef('M')])",
        "f(x=&lt;object object at 0x7f&gt;)",
        "f() → g.&lt;locals&gt;.T",
    ],
)
def test_private_name_in_a_signature_is_found(text: str) -> None:
    assert len(check_docs.wrong_signatures(signature(text))) == 1
    assert len(check_docs.wrong_signatures(f"<p>Bases: <code>{text}</code></p>")) == 1


@pytest.mark.parametrize("text", ["f(x: int) → None", "snake_case(a_b=1)", "__init__()", "f(x='a-_b')"])
def test_public_name_in_a_signature_is_fine(text: str) -> None:
    assert check_docs.wrong_signatures(signature(text)) == []


def test_function_without_its_source_is_found() -> None:
    assert check_docs.without_source(signature("f()")) == ["f()"]
    assert check_docs.without_source(signature('f()<a class="viewcode-link"></a>')) == []
    assert check_docs.without_source(signature("trio_channels.db.database_sync_to_async()")) == []


def test_attribute_that_one_class_lacks_is_found() -> None:
    shown = "".join(f"<strong>{name}</strong>" for name in (*check_docs.ATTRIBUTES, "groups"))
    one, two = f'<dl class="py class">{shown}', '<dl class="py class">'
    assert check_docs.missing_attributes(one, ("groups",)) == []
    assert check_docs.missing_attributes(one, ("groups", "more")) == ["more"]
    assert check_docs.missing_attributes(one + two, ()) == list(check_docs.ATTRIBUTES)


def test_marks_of_aliases_leave_signatures() -> None:
    def plain(signature: str | None, returned: str | None = None) -> tuple[str | None, str | None]:
        return docs_objects.plain_signature(None, "", "", None, None, signature, returned)

    assert plain("(x: TypeAliasForwardRef('M') | None)", "list[TypeAliasForwardRef('M')]") == (
        "(x: M | None)",
        "list[M]",
    )
    assert plain("(*_args: ~typing.Any, **_kwargs: ~typing.Any)") == ("", None)
    assert plain("(x: int, *_args: Any, **_kwargs: Any)") == ("(x: int, *args: Any, **kwargs: Any)", None)
    assert plain(None) == (None, None)


@pytest.mark.parametrize("own", [["Text.", "", "Attributes:", "    mine: of the class.", "", "More."], ["Text."]])
def test_inherited_attributes_are_shown_with_its_own(own: list[str]) -> None:
    from trio_channels.consumer import AsyncConsumer

    class Mine(AsyncConsumer):
        """Text."""

    lines = list(own)
    docs_objects.with_inherited_attributes(None, "class", "", Mine, None, lines)
    heading = lines.index("Attributes:")
    attributes = [line for line in lines[heading + 1 :] if line.startswith("    ") and line[4] != " "]
    names = [line.strip().partition(":")[0] for line in attributes]
    assert set(check_docs.ATTRIBUTES) <= set(names)
    assert names[0] == ("mine" if len(own) > 1 else "channel_layer_alias")
    assert lines[-1] == ("More." if len(own) > 1 else "")


def test_inventories_have_the_names() -> None:
    data = docs_objects.inventory("x", {"class a.html": ["x.A", "x.B"]})
    head, _, rest = data.partition(b"zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2\n# Project: x\n")
    import zlib

    assert zlib.decompress(rest).decode() == "x.A py:class 1 a.html#$ -\nx.B py:class 1 a.html#$ -\n"
