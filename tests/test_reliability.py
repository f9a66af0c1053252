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
@pytest.mark.parametrize("subject", ["training", "generator", "sampling", "resynthesis", "sweep",
                                     "prepare", "predict"])  # fmt: skip
def test_what_was_killed_and_continued_is_as_if_it_had_not_been(subject: str) -> None:
    (row,) = counts("kills.py", "--kills", "2", "--only", subject)
    assert int(row["kills"]) >= 2
    assert (row["equal"], row["left_over"]) == (row["rounds"], "0")


@pytest.mark.slow
@pytest.mark.parametrize("race", ["run, one name", "run, default names", "run, one cache",
                                  "run, resumed twice", "sweep", "generator, one name", "source",
                                  "source, two seeds", "prepare", "table"])  # fmt: skip
def test_of_two_at_once_one_wins_or_both_are_right(race: str) -> None:
    (row,) = counts("races.py", "--rounds", "1", "--only", race)
    assert int(row["both"]) + int(row["one"]) == 1
    assert row["left_over"] == "0"
