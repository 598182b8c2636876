"""The judge of the census notices what it is there to notice: each wrong answer is blamed, each right one is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tools.census.judging import Asking, Hit, Judge
from tools.census.ledger import Ledger, Op, rows_of

KEYS = range(6)  # 0 to 3 are always there, 4 and 5 come and go
SEED = 7


class Story:
    """A ledger that is told second by second, and a judge of one answer at its end."""

    def __init__(self, level: str = "Strong") -> None:
        self.ledger = Ledger("told", shards=1, dim=4, keys=len(KEYS), steady_share=0.7)
        self.blamed: list[str] = []
        self.late: list[int] = []
        self.judge = Judge(self.ledger, level == "Session", self.blamed.append, lambda op: self.late.append(op.number))
        self.now_s = 0.0
        self.write("upsert", KEYS)

    def write(self, what: str, keys: Sequence[int], acknowledged: bool = True) -> int:
        """It began now, and ended a second later; its number."""
        number = len(self.ledger.by_number) + 1
        scores = {} if what == "delete" else rows_of(number, list(keys), self.ledger.dim, SEED)[1]
        op = Op(number, what, tuple(keys), self.now_s, scores)
        self.ledger.issue(op)
        self.now_s += 1.0
        if acknowledged:
            op.acknowledged_s = self.now_s
        else:
            op.failed_s = self.now_s
        return number

    def answer(self, numbers: dict[int, int], must_see_s: float | None = None) -> list[str]:
        """What the judge says about the numbers found by key; each with the score of its write."""
        scores = {number: op.scores for number, op in self.ledger.by_number.items()}
        return self.say([Hit(key, n, scores[n].get(key, 0.0)) for key, n in numbers.items()], must_see_s)

    def say(self, hits: Sequence[Hit], must_see_s: float | None = None) -> list[str]:
        began_s = self.now_s + 0.1
        self.now_s += 1.0
        asking = Asking(
            "search", began_s, began_s + 0.5, began_s if must_see_s is None else must_see_s, must_see_s is None
        )
        self.blamed.clear()
        self.judge.judge(asking, hits)
        return [text.partition("\n")[0] for text in self.blamed]


def test_what_was_acknowledged_last_is_right() -> None:
    """Each key once, of its last acknowledged write, deleted ones absent: nothing to blame."""
    story = Story()
    second = story.write("upsert", [0, 1])
    story.write("delete", [5])

    assert story.answer({0: second, 1: second, 2: 1, 3: 1, 4: 1}) == []
    assert story.ledger.lost({0: second, 1: second, 2: 1, 3: 1, 4: 1}) == []


@pytest.mark.parametrize(
    ("numbers", "blame"),
    [
        ({0: 2, 1: 2, 2: 1, 4: 1}, "always there, now missing: [3]"),
        ({0: 2, 1: 2, 2: 1, 3: 1}, "wrongly absent: [4]"),
        ({0: 2, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1}, "of a wrong write: [5]"),
        ({0: 1, 1: 1, 2: 1, 3: 1, 4: 1}, "of a wrong write: [0, 1]"),
        ({0: 2, 1: 1, 2: 1, 3: 1, 4: 1}, "of a write that is seen in part: [1]"),
    ],
)
def test_what_is_wrong_is_blamed(numbers: dict[int, int], blame: str) -> None:
    """A missing key, an absent one, one back from the dead, old ones, and half a write are each blamed."""
    story = Story()
    story.write("upsert", [0, 1])
    story.write("delete", [5])

    assert any(blame in text for text in story.answer(numbers))


def test_a_key_found_twice_is_blamed() -> None:
    """Two rows of a key in one answer are blamed, even when both are the right row."""
    story = Story()
    rows = rows_of(1, list(KEYS), 4, SEED)[1]

    blamed = story.say([*(Hit(key, 1, rows[key]) for key in KEYS), Hit(2, 1, rows[2])])

    assert len(blamed) == 1 and "keys twice: [2]" in blamed[0]


def test_a_number_with_the_vector_of_another_write_is_blamed() -> None:
    """A hit whose score does not belong to its number is blamed."""
    story = Story()
    rows = rows_of(1, list(KEYS), 4, SEED)[1]

    blamed = story.say([Hit(key, 1, rows[key] * (1.1 if key == 3 else 1.0)) for key in KEYS])

    assert len(blamed) == 1 and "another write: [3]" in blamed[0]


def test_a_failed_write_may_be_there_or_not() -> None:
    """After a write of unknown outcome both its rows and the ones before are right, and its keys are not lost."""
    for number in (1, 2):
        story = Story()
        story.write("upsert", [0, 1], acknowledged=False)
        numbers = dict.fromkeys(KEYS, 1) | {0: number, 1: number}

        assert story.answer(numbers) == []
        assert story.ledger.lost(numbers) == []


def test_a_failed_write_that_comes_after_a_later_one_is_told_but_not_blamed() -> None:
    """A write of unknown outcome that wins over a later acknowledged one took effect late."""
    story = Story()
    failed = story.write("upsert", [0, 1], acknowledged=False)
    story.write("upsert", [0, 1])

    assert story.answer(dict.fromkeys(KEYS, 1) | {0: failed, 1: failed}) == []
    assert set(story.late) == {failed}


def test_a_failed_write_that_comes_after_a_strong_read_missed_it_is_told() -> None:
    """A Strong read after the failure finds the row before, a later one the row of the failed write: it came late. What
    one of its keys shows says nothing of another's."""
    story = Story()
    failed = story.write("upsert", [0, 1], acknowledged=False)
    half = dict.fromkeys(KEYS, 1) | {1: failed}

    story.answer(half)
    assert story.late == []
    story.answer(dict.fromkeys(KEYS, 1) | {0: failed, 1: failed})
    assert story.late == [failed]


def test_a_failed_write_that_was_seen_may_not_come_back() -> None:
    """Once its rows were seen and then replaced by an acknowledged write, they are an old generation like any other."""
    story = Story()
    failed = story.write("upsert", [0, 1], acknowledged=False)
    numbers = dict.fromkeys(KEYS, 1) | {0: failed, 1: failed}
    assert story.answer(numbers) == []
    third = story.write("upsert", [0, 1])

    assert any("of a wrong write: [0, 1]" in text for text in story.answer(numbers))
    assert [key for key, op in story.ledger.lost(numbers) if op.number == third] == [0, 1]


def test_a_session_never_goes_back() -> None:
    """A read that need not see the newest write may find it or the one before; after it was found, a Session may not
    find the one before, and other levels may."""
    for level, blamed in (("Session", True), ("Bounded", False)):
        story = Story(level)
        second = story.write("upsert", [0, 1])
        old, new = dict.fromkeys(KEYS, 1), dict.fromkeys(KEYS, 1) | {0: second, 1: second}

        assert story.answer(old, must_see_s=1.0) == []
        assert story.answer(new, must_see_s=1.0) == []
        assert bool(story.answer(old, must_see_s=1.0)) is blamed


def test_a_session_may_not_find_a_key_yet_and_find_it_later() -> None:
    """A key that a read need not have found has not been seen deleted by it, whatever deletes are under way."""
    story = Story("Session")
    story.write("delete", [5])
    everything = dict.fromkeys(KEYS, 1)

    assert story.answer({key: 1 for key in KEYS if key != 5}, must_see_s=0.0) == []
    assert story.answer(everything, must_see_s=0.0) == []


def test_a_lost_write_is_told() -> None:
    """At the end, a key whose last acknowledged write is not there is lost."""
    story = Story()
    second = story.write("upsert", [0, 1])
    story.write("delete", [5])

    lost = story.ledger.lost(dict.fromkeys(KEYS, 1) | {0: second})

    assert [(key, op.number) for key, op in lost] == [(1, second), (5, 3)]


def test_a_count_between_what_may_be_is_right() -> None:
    """With a delete of unknown outcome both counts are right, any other is blamed."""
    story = Story()
    story.write("delete", [5], acknowledged=False)
    asking = Asking("count", 9.0, 9.1, 9.0, True)

    for count in (4, 5, 6, 7):
        story.judge.judge_count(asking, count)

    assert [text.split()[2] for text in story.blamed] == ["4", "7"]
