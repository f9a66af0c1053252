"""Start two of everything at once, and see that one wins or both are right: never a mixture.

``python experiments/reliability/races.py --rounds 100`` prints a csv of counts.
"""

import argparse
import csv
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from subjects import (
    DCGAN,
    PREDICT,
    PREPARE,
    SAMPLE,
    SUBJECTS,
    SWEEP,
    TRAIN,
    Outcome,
    Process,
    done,
    generated,
    import_everything,
    left_over,
    sampled,
    trained,
    write_faces,
)

COUNTS = ("rounds", "both", "one", "neither", "mixture", "left_over")

RATES = ("1e-3", "1e-4")
"""Learning rates of two trainings that differ."""


class Race(NamedTuple):
    """Two commands to start at once.

    Attributes:
        commands: of the two.
        found: what they left in a folder: for each result found, which of the two it should be of
            (0 or 1), and what it is.
        whole: what each leaves alone in a folder.
        needs: one of `SUBJECTS` with whose end they begin, or None.
        apart: most seconds between their starts.
    """

    commands: tuple[list[str], list[str]]
    found: Callable[[Path], Iterator[tuple[int, Outcome]]]
    whole: Callable[[Path], Outcome]
    needs: str | None = None
    apart: float = 1.0


def train(*more: str) -> tuple[list[str], list[str]]:
    """Two trainings that differ in their learning rate."""
    one, other = (["train", *TRAIN, f"model.learning_rate={rate}", *more] for rate in RATES)
    return one, other


def runs_found(folder: Path) -> Iterator[tuple[int, Outcome]]:
    """Every complete run of `train`."""
    for path in sorted((folder / "outputs").glob("*/result.json")):
        rate = json.loads(path.read_text())["settings"]["model"]["learning_rate"]
        yield [float(one) for one in RATES].index(rate), trained(path.parent)


def only_run(folder: Path) -> Outcome:
    """The run that one of `train` leaves alone."""
    ((_, outcome),) = runs_found(folder)
    return outcome


def source_found(folder: Path) -> Iterator[tuple[int, Outcome]]:
    """The sampled source, by its seed."""
    path = folder / "faces" / "more" / "source.json"
    if path.exists():
        yield json.loads(path.read_text())["seed"] - 5, sampled(folder, "more")


def one_found(
    outcome: Callable[[Path], Outcome],
) -> Callable[[Path], Iterator[tuple[int, Outcome]]]:
    """What two equal commands leave."""
    return lambda folder: iter([(0, outcome(folder))])


def equal(*command: str) -> tuple[list[str], list[str]]:
    """The same command twice."""
    return list(command), list(command)


OTHER_SEED = [one.replace("seed=5", "seed=6") for one in SAMPLE]
NAMED = ["name=x"]

RACES = {
    "run, one name": Race(train(*NAMED), runs_found, only_run),
    "run, default names": Race(train(), runs_found, only_run, apart=0.2),
    "run, one cache": Race(
        (train("name=a")[0], train("name=b")[1]), runs_found, only_run, apart=0.2
    ),
    "run, resumed twice": Race(
        equal("train", "resume=outputs/x", "max_epochs=8"),
        one_found(SUBJECTS["training"].outcome), SUBJECTS["training"].outcome, "training",
    ),
    "sweep": Race(
        equal("train", *SWEEP), one_found(SUBJECTS["sweep"].outcome), SUBJECTS["sweep"].outcome
    ),
    "generator, one name": Race(
        equal("generate", *DCGAN, *NAMED),
        one_found(lambda folder: generated(folder, "dcgan")),
        lambda folder: generated(folder, "dcgan"),
    ),
    "source": Race(
        equal("generate", *SAMPLE), source_found, SUBJECTS["sampling"].outcome, "generator"
    ),
    "source, two seeds": Race(
        (["generate", *SAMPLE], ["generate", *OTHER_SEED]),
        source_found, SUBJECTS["sampling"].outcome, "generator",
    ),
    "prepare": Race(
        equal("forensics", *PREPARE),
        one_found(SUBJECTS["prepare"].outcome), SUBJECTS["prepare"].outcome, apart=0.1,
    ),
    "table": Race(
        equal("forensics", *PREDICT),
        one_found(SUBJECTS["predict"].outcome), SUBJECTS["predict"].outcome, "training", 0.3,
    ),
}  # fmt: skip


def race(name: str, wholes: list[Outcome], folder: Path, draws: random.Random,
         counts: Counter[str]) -> None:  # fmt: skip
    """Run one race and count how it ended.

    Args:
        name: one of `RACES`.
        wholes: what each of the two leaves alone.
        folder: a folder to work in, with what they need.
        draws: random numbers.
        counts: counts to add to.
    """
    counts["rounds"] += 1
    apart = RACES[name].apart
    pair = [Process(command, folder, draws.uniform(0, apart)) for command in RACES[name].commands]
    codes = [process.wait() for process in pair]
    said = [process.log.read_text()[-2000:] for process in pair]
    wrong = [text for code, text in zip(codes, said, strict=True)
             if code not in (0, 1) or "Traceback" in text]  # fmt: skip
    found = list(RACES[name].found(folder))
    mixed = any(outcome != wholes[number] for number, outcome in found)
    ended = codes.count(0)
    if wrong or mixed or not found or ended == 0:
        counts["mixture" if mixed else "neither"] += 1
        print(f"{name}: exit codes {codes}, mixed: {mixed}\n{wrong or said}", file=sys.stderr)
    else:
        counts["both" if ended == 2 else "one"] += 1
    if leftovers := left_over(folder):
        counts["left_over"] += 1
        print(f"{name}: left {leftovers}", file=sys.stderr)


def measured(names: list[str], rounds: int, seed: int, place: Path) -> dict[str, Counter[str]]:
    """Counts by race.

    Args:
        names: which of `RACES` to run.
        rounds: how often each.
        seed: of the delays.
        place: an empty folder.
    """
    import_everything()
    bases: dict[str | None, Path] = {None: place / "base"}
    write_faces(place / "base")
    counts = {name: Counter(dict.fromkeys(COUNTS, 0)) for name in names}
    for name in names:
        needs = RACES[name].needs
        if needs is not None and needs not in bases:
            bases[needs] = place / needs
            shutil.copytree(place / "base", place / needs)
            done(SUBJECTS[needs].command, place / needs)
        wholes = []
        for command in RACES[name].commands:
            folder = place / "alone"
            shutil.copytree(bases[needs], folder)
            done(command, folder)
            wholes.append(RACES[name].whole(folder))
            shutil.rmtree(folder)
        draws = random.Random(f"{seed} {name}")
        for _ in range(rounds):
            folder = place / "raced"
            shutil.copytree(bases[needs], folder)
            race(name, wholes, folder, draws, counts[name])
            shutil.rmtree(folder)
    return counts


def main() -> int:
    """Print the counts; returns 1 if anything is mixed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="of each race (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the delays (0)")
    parser.add_argument("--only", nargs="+", choices=RACES, default=list(RACES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="races-") as place:
        counts = measured(given.only, given.rounds, given.seed, Path(place))
    table = csv.writer(sys.stdout)
    table.writerow(["race", *COUNTS])
    table.writerows([name, *(of[key] for key in COUNTS)] for name, of in counts.items())
    return int(any(of["neither"] or of["mixture"] or of["left_over"] for of in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
