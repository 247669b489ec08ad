"""The rules for names, against the alphabet that they are made of."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_channels.exceptions import InvalidNameError
from trio_channels.layers import names

LETTERS = string.ascii_letters + string.digits + "-_."

words = st.text(LETTERS, min_size=1, max_size=49)
# Text that is nearly a name more often than text at random is.
nearly = st.text(st.one_of(st.sampled_from(LETTERS + "! \n\u0663\u00e9"), st.characters()), max_size=110)


@given(nearly)
@example("a" * 99)
@example("a" * 100)
@example("name\n")
@example("\u0663")
def test_group_name_is_1_to_99_letters_of_the_alphabet(name: str) -> None:
    assert names.is_group_name(name) is (1 <= len(name) <= 99 and set(name) <= set(LETTERS))


@given(nearly)
@example("a!")
@example("!a")
@example("a!b!c")
@example("a!b\n")
def test_channel_name_may_hold_one_mark_after_the_first_letter(name: str) -> None:
    legal = 1 <= len(name) <= 99 and set(name) <= set(LETTERS + "!") and name.count("!") <= 1 and name[0] != "!"
    assert names.is_channel_name(name) is legal


@given(words, words)
def test_name_with_a_mark_is_process_local(process: str, rest: str) -> None:
    names.check_channel_name(f"{process}!{rest}")
    assert names.is_process_local(f"{process}!{rest}")
    assert not names.is_process_local(process)


@pytest.mark.parametrize("name", [None, b"bytes", 5, ["a"], ("a",)], ids=repr)
def test_what_is_no_str_is_no_name(name: object) -> None:
    assert not names.is_group_name(name)
    assert not names.is_channel_name(name)


def test_checking_a_legal_name_is_silent() -> None:
    names.check_group_name("room-1_a.b")
    names.check_channel_name("specific.worker!abc")


@pytest.mark.parametrize("check", [names.check_group_name, names.check_channel_name])
def test_error_says_what_was_expected_and_what_came(check: object) -> None:
    with pytest.raises(InvalidNameError, match=r"1 to 99 ASCII letters.*got 'a\\n'"):
        check("a\n")  # type: ignore[operator]


def test_bad_name_is_a_type_error_as_in_channels() -> None:
    assert issubclass(InvalidNameError, TypeError)
