"""Kill every program at random moments, continue it, and compare with what was never killed.

``python experiments/reliability/kills.py --kills 50`` prints a csv of counts.
"""

import argparse
import csv
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from subjects import SUBJECTS, Process, done, import_everything, left_over, write_faces

COUNTS = ("rounds", "kills", "too_late", "equal", "different", "failed", "left_over")


def kill_and_continue(name: str, whole: Path, folder: Path, seconds: float, draws: random.Random,
                      counts: Counter[str]) -> None:  # fmt: skip
    """Kill a subject once or twice, continue it, and count how it ended.

    Args:
        name: one of `SUBJECTS`.
        whole: folder of the one that was never killed.
        folder: a folder to work in, with what the subject needs.
        seconds: how long the one that was never killed took.
        draws: random numbers.
        counts: counts to add to.
    """
    subject = SUBJECTS[name]
    counts["rounds"] += 1
    command = subject.command
    for _ in range(draws.choice((1, 1, 2))):
        process = Process(command, folder)
        code = process.wait(draws.uniform(0, seconds))
        if code is None:
            process.kill()
            process.wait()
            counts["kills"] += 1
            command = subject.again(folder)
        elif code == 0:
            counts["too_late"] += 1
            break
    failure = ""
    if code != 0:
        try:
            done(command, folder)
        except RuntimeError as error:
            failure = str(error)  # also if it was killed after its last file
    expected = subject.outcome(whole)
    try:
        got = subject.outcome(folder)
    except FileNotFoundError:
        got = {}
    differing = [key for key in expected if expected[key] != got.get(key)]
    if differing:
        counts["failed" if failure else "different"] += 1
        print(f"{name}: {differing} differ\n{failure}", file=sys.stderr)
    else:
        counts["equal"] += 1
    if leftovers := left_over(folder):
        counts["left_over"] += 1
        print(f"{name}: left {leftovers}", file=sys.stderr)


def measured(names: list[str], kills: int, seed: int, place: Path) -> dict[str, Counter[str]]:
    """Counts by subject.

    Args:
        names: which of `SUBJECTS` to kill.
        kills: how often each; rounds that end before theirs are not counted.
        seed: of the moments.
        place: an empty folder.
    """
    import_everything()
    counts = {name: Counter(dict.fromkeys(COUNTS, 0)) for name in names}
    for name, subject in SUBJECTS.items():
        if name not in names and name not in {SUBJECTS[one].needs for one in names}:
            continue
        base = place / "base"
        if subject.needs:
            base = place / f"{subject.needs}-whole"
        elif not base.exists():
            write_faces(base)
        whole = place / f"{name}-whole"
        shutil.copytree(base, whole)
        seconds = done(subject.command, whole)
        if name not in names:
            continue
        draws = random.Random(f"{seed} {name}")
        while counts[name]["kills"] < kills:
            folder = place / "killed"
            shutil.copytree(base, folder)
            kill_and_continue(name, whole, folder, seconds, draws, counts[name])
            shutil.rmtree(folder)
    return counts


def main() -> int:
    """Print the counts; returns 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each subject (50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        counts = measured(given.only, given.kills, given.seed, Path(place))
    table = csv.writer(sys.stdout)
    table.writerow(["subject", *COUNTS])
    table.writerows([name, *(of[key] for key in COUNTS)] for name, of in counts.items())
    return int(any(of["different"] or of["failed"] or of["left_over"] for of in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
