"""The studies of kills and races, a little of them; `experiments/reliability` has more rounds."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[1] / "experiments" / "reliability"


def counts(script: str, *given: str) -> list[dict[str, str]]:
    """Run a study, in a process of its own because it forks; returns its table."""
    command = [sys.executable, str(STUDY / script), *given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(done.stdout.splitlines()))


@pytest.mark.slow
def test_what_was_killed_and_continued_is_as_if_it_had_not_been() -> None:
    rows = counts(
        "kills.py", "--kills", "1", "--only", "training", "sampling", "prepare", "predict"
    )
    assert len(rows) == 4
    for row in rows:
        assert int(row["kills"]) >= 1
        assert (row["equal"], row["left_over"]) == (row["rounds"], "0")


@pytest.mark.slow
def test_of_two_at_once_one_wins_or_both_are_right() -> None:
    rows = counts("races.py", "--rounds", "1", "--only", "run, one name", "prepare", "table")
    assert len(rows) == 3
    for row in rows:
        assert int(row["both"]) + int(row["one"]) == 1
        assert row["left_over"] == "0"
