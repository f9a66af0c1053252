"""Files written by earlier versions are still read, and mean what they meant."""

import csv
from pathlib import Path

import pytest

from forensics.reports.study import read_study
from forensics.scoring import Predictor

FORMAT_1 = Path(__file__).parent / "fixtures" / "format_1"


def test_detector_of_format_1_gives_the_scores_it_gave() -> None:
    rows = list(csv.DictReader((FORMAT_1 / "scores.csv").read_text().splitlines()))
    assert len(rows) == 8
    detector = Predictor.load(FORMAT_1 / "run")
    predictions = detector.predict([FORMAT_1 / row["path"] for row in rows])
    for row, prediction in zip(rows, predictions, strict=True):
        assert prediction.logit == pytest.approx(float(row["logit"]), abs=1e-6)
        assert prediction.probability_real == pytest.approx(float(row["probability_real"]))
        assert (prediction.verdict, prediction.reason) == (row["verdict"], row["reason"])


def test_run_of_format_1_is_reported() -> None:
    study = read_study([FORMAT_1 / "run"])
    assert [run.seed for run in study.runs] == [0]
    assert study.pairs() == [
        ("demo_real", name) for name in ("demo_pggan", "demo_wgan_gp", "demo_dcgan")
    ]
