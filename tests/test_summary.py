"""Mean and worst over generators, by hand."""

from typing import Any

import pytest

from forensics.evaluation.summary import summarise


def pair(generator: str, *, seen: bool, auroc: float, tpr: float, tnr: float) -> dict[str, Any]:
    at = {"tpr": tpr, "tnr": tnr, "acc": 0.123}
    return {
        "real": "r", "generator": generator, "seen": seen, "ranking": {"auroc": auroc},
        "at_0.5": at,
    }  # fmt: skip


def test_means_and_worst_pairs() -> None:
    pairs = [
        pair("a", seen=True, auroc=1.0, tpr=0.9, tnr=0.8),
        pair("b", seen=False, auroc=0.6, tpr=0.9, tnr=0.1),
        pair("c", seen=False, auroc=0.5, tpr=0.9, tnr=0.5),
    ]
    found = summarise(pairs, ["0.5"])
    assert found["seen"]["at_0.5"]["mean"] == pytest.approx(0.85)
    unseen = found["unseen"]
    assert unseen["pairs"] == 2
    assert unseen["auroc"] == {"mean": 0.55, "worst": 0.5, "worst_pair": ["r", "c"]}
    # Balanced accuracies of 0.5 and 0.7, whatever the numbers of images of either class.
    assert unseen["at_0.5"]["mean"] == pytest.approx(0.6)
    assert unseen["at_0.5"]["worst"] == pytest.approx(0.5)
    assert unseen["at_0.5"]["worst_pair"] == ["r", "b"]


def test_a_role_without_generators_is_none() -> None:
    assert summarise([pair("a", seen=True, auroc=1, tpr=1, tnr=1)], ["0.5"])["unseen"] is None
    assert summarise([], []) == {"seen": None, "unseen": None}
