"""When a label begins and when it ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgevid import Decisions, Smoother, Smoothing, UsageError
from edgevid.smoothing import Prediction

LABELS = ("cat", "dog", "owl")


def decided(rows: Sequence[Sequence[float]], decisions: Decisions, multi_label: bool = False) -> list[Prediction]:
    """Decide on scores as they are, ten frames a second."""
    smoother = Smoother(LABELS, Smoothing(window=1), decisions, multi_label=multi_label)
    return [smoother.update(np.array(row, np.float32), index, index / 10) for index, row in enumerate(rows)]


def labels(rows: Sequence[Sequence[float]], decisions: Decisions) -> list[str]:
    return [prediction.label for prediction in decided(rows, decisions)]


def test_with_the_defaults_the_best_label_holds() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    predictions = decided(rows.tolist(), Decisions())
    assert [p.label for p in predictions] == [p.raw_label for p in predictions]


def test_below_enter_it_is_uncertain_and_says_how_uncertain() -> None:
    predictions = decided([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.55, 0.3, 0.15]], Decisions(enter=0.6))
    assert [(p.label, p.score) for p in predictions] == [
        ("uncertain", 0.5),
        ("cat", pytest.approx(0.7)),
        ("uncertain", pytest.approx(0.55)),
    ]
    assert [[label for label, _ in p.holding] for p in predictions] == [[], ["cat"], []]


def test_a_label_that_has_begun_goes_on_until_below_leave() -> None:
    rows = [[0.7, 0.2, 0.1], [0.45, 0.5, 0.05], [0.35, 0.55, 0.1], [0.2, 0.7, 0.1]]
    assert labels(rows, Decisions(enter=0.6, leave=0.4)) == ["cat", "cat", "uncertain", "dog"]


def test_a_better_label_that_may_begin_takes_over_at_once() -> None:
    assert labels([[0.5, 0.3, 0.2], [0.42, 0.48, 0.1]], Decisions(enter=0.45, leave=0.4)) == ["cat", "dog"]


def test_a_margin_is_wanted_to_begin_and_not_to_go_on() -> None:
    rows = [[0.4, 0.35, 0.25], [0.5, 0.3, 0.2], [0.4, 0.45, 0.15], [0.3, 0.6, 0.1]]
    shown = decided(rows, Decisions(margin=0.15))
    assert [p.label for p in shown] == ["uncertain", "cat", "cat", "dog"]
    assert [p.score for p in shown] == pytest.approx([0.4, 0.5, 0.4, 0.6])


def test_a_label_holds_for_a_time() -> None:
    rows = [[0.9, 0.1, 0], [0.1, 0.9, 0], [0.1, 0.9, 0], [0.1, 0.9, 0], [0.9, 0.1, 0]]
    assert labels(rows, Decisions(hold_s=0.25)) == ["cat", "cat", "cat", "dog", "dog"]


@pytest.mark.parametrize("multi_label", [False, True])
def test_how_long_a_label_holds_does_not_depend_on_how_times_are_rounded(multi_label: bool) -> None:
    """0.3 s are three steps of a tenth, at any of the starts whose sum with 0.3 is above or below the exact one."""
    for begin in range(50):
        smoother = Smoother(LABELS, Smoothing(window=1), Decisions(hold_s=0.3), multi_label=multi_label)
        rows = [[0.9, 0.1, 0], *[[0.1, 0.9, 0]] * 4]
        shown = [smoother.update(np.array(row, np.float32), i, (begin + i) / 10) for i, row in enumerate(rows)]
        assert [any(label == "cat" for label, _ in each.holding) for each in shown] == [True] * 3 + [False] * 2, begin


def test_a_gap_ends_what_held() -> None:
    smoother = Smoother(LABELS, Smoothing(window=1), Decisions(enter=0.6, leave=0.1))
    assert smoother.update(np.array([0.7, 0.2, 0.1], np.float32), 0, 0.0).label == "cat"
    assert smoother.update(np.array([0.5, 0.4, 0.1], np.float32), 1, 9.0, gap_s=9.0).label == "uncertain"


def test_classes_of_a_sigmoid_decide_on_their_own() -> None:
    rows = [[0.9, 0.6, 0.1], [0.45, 0.7, 0.2], [0.2, 0.3, 0.4]]
    predictions = decided(rows, Decisions(), multi_label=True)
    assert [[label for label, _ in p.holding] for p in predictions] == [["cat", "dog"], ["dog"], []]
    assert [p.label for p in predictions] == ["cat", "dog", "none"]
    assert predictions[1].to_dict()["labels"] == [["dog", 0.7]]
    predictions = decided(rows, Decisions(enter=0.8, leave=0.4), multi_label=True)
    assert [[label for label, _ in p.holding] for p in predictions] == [["cat"], ["cat"], []]
    predictions = decided(rows, Decisions(hold_s=1), multi_label=True)
    assert [sorted(label for label, _ in p.holding) for p in predictions] == [["cat", "dog"]] * 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"enter": 1.5}, "enter 1.5: expected a score from 0 to 1"),
        ({"margin": -0.1}, "margin -0.1: expected a score"),
        ({"hold_s": -1}, "hold -1: expected seconds"),
        ({"enter": 0.4, "leave": 0.6}, "leave 0.6 is above enter 0.4"),
        ({"leave": 0.6}, "leave 0.6 is above enter 0"),
    ],
)
def test_decisions_that_cannot_be_meant(given: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Smoother(LABELS, decisions=Decisions(**given))


def test_a_margin_makes_no_sense_for_sigmoids() -> None:
    with pytest.raises(UsageError, match="answers to each class on its own"):
        Smoother(LABELS, decisions=Decisions(margin=0.1), multi_label=True)
