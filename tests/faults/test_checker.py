"""The delivery checker finds each sort of fault, and no fault where there is none. Quick, so always run."""

from __future__ import annotations

from typing import Any

from .checker import GAP, DeliveryChecker, Receiver


def gap(lost: int | None) -> dict[str, Any]:
    return {"type": GAP, "lost": lost, "reason": "overflow"}


def published(count: int) -> tuple[DeliveryChecker, Receiver, list[dict[str, Any]]]:
    checker = DeliveryChecker()
    receiver = checker.receiver("someone", "room")
    return checker, receiver, [checker.stamp("p", "room") for _ in range(count)]


def show(receiver: Receiver, *items: dict[str, Any]) -> None:
    for item in items:
        receiver.got(item)


def test_everything_in_order_is_right() -> None:
    checker, receiver, sent = published(3)
    show(receiver, *sent)
    assert checker.faults() == []
    assert receiver.messages == 3


def test_two_publishers_may_interleave() -> None:
    checker, receiver, sent = published(2)
    other = [checker.stamp("q", "room") for _ in range(2)]
    show(receiver, sent[0], other[0], other[1], sent[1])
    assert checker.faults() == []


def test_hole_without_an_explanation_is_a_fault() -> None:
    checker, receiver, sent = published(3)
    show(receiver, sent[0], sent[2])
    assert checker.faults() == ["someone: 1 of p to room (1 to 1) missing before number 2, without a gap"]


def test_missing_end_is_a_fault() -> None:
    checker, receiver, sent = published(3)
    show(receiver, sent[0])
    assert checker.faults() == ["someone: 2 of p to room (1 to 2) missing at the end, without a gap or a close"]


def test_receiver_that_got_nothing_at_all_is_a_fault() -> None:
    checker, _, _ = published(1)
    assert checker.faults() == ["someone: 1 of p to room (0 to 0) missing at the end, without a gap or a close"]


def test_duplicate_is_a_fault() -> None:
    checker, receiver, sent = published(2)
    show(receiver, sent[0], sent[0], sent[1])
    assert checker.faults() == ["someone: number 0 of p to room came twice"]


def test_wrong_order_is_a_fault() -> None:
    checker, receiver, sent = published(2)
    show(receiver, sent[1], sent[0])
    assert checker.faults() == ["someone: number 0 of p to room came after number 1"]


def test_message_of_another_group_is_a_fault() -> None:
    checker, receiver, _ = published(0)
    show(receiver, checker.stamp("p", "elsewhere"))
    assert checker.faults() == ["someone: number 0 of p to elsewhere was never sent to it"]


def test_gap_of_the_right_size_explains_a_hole() -> None:
    checker, receiver, sent = published(4)
    show(receiver, sent[0], gap(2), sent[3])
    assert checker.faults() == []


def test_gap_at_the_wrong_place_does_not() -> None:
    checker, receiver, sent = published(4)
    show(receiver, sent[0], sent[2], gap(1), sent[3])
    assert checker.faults() == ["someone: 1 of p to room (1 to 1) missing before number 2, without a gap"]


def test_gap_that_counts_wrongly_is_a_fault() -> None:
    for lost in (1, 3):
        checker, receiver, sent = published(4)
        show(receiver, sent[0], gap(lost), sent[3])
        assert checker.faults() == [f"someone: 2 messages are missing, the gaps say {lost}"]


def test_gap_without_a_number_explains_any_hole() -> None:
    checker, receiver, sent = published(9)
    show(receiver, sent[0], gap(None), sent[8])
    assert checker.faults() == []


def test_one_gap_may_explain_holes_of_several_publishers() -> None:
    checker, receiver, sent = published(3)
    other = [checker.stamp("q", "room") for _ in range(3)]
    show(receiver, sent[0], other[0], gap(2), sent[2], other[2])
    assert checker.faults() == []


def test_gap_where_nothing_is_missing_is_a_fault() -> None:
    checker, receiver, sent = published(2)
    show(receiver, sent[0], gap(1), sent[1])
    assert checker.faults() == ["someone: 0 messages are missing, the gaps say 1"]


def test_close_explains_a_missing_end_and_no_hole_before_it() -> None:
    checker, receiver, sent = published(5)
    show(receiver, sent[0], sent[1])
    receiver.close()
    assert checker.faults() == []

    checker, receiver, sent = published(5)
    show(receiver, sent[0], sent[2])
    receiver.close()
    assert checker.faults() == ["someone: 1 of p to room (1 to 1) missing before number 2, without a gap"]


def test_message_after_the_close_is_a_fault() -> None:
    checker, receiver, sent = published(2)
    receiver.got(sent[0])
    receiver.close()
    receiver.got(sent[1])
    assert checker.faults() == ["someone: number 1 of p to room came after the close"]


def test_publish_that_raised_may_have_come_or_not() -> None:
    for came in (True, False):
        checker, receiver, sent = published(3)
        checker.raised(sent[1])
        show(receiver, *(sent if came else [sent[0], sent[2]]))
        assert checker.faults() == []


def test_what_was_published_before_a_receiver_joined_is_not_missing() -> None:
    checker, receiver, sent = published(2)
    show(receiver, *sent)
    late = checker.receiver("latecomer", "room")
    third = checker.stamp("p", "room")
    receiver.got(third)
    late.got(third)
    assert checker.faults() == []
