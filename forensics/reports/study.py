"""The runs of a study, read from their folders, and whether they may be compared at all."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from forensics.errors import UserError
from forensics.evaluation.comparison import Pair
from forensics.evaluation.metrics import at_threshold, ranking_values
from forensics.preprocess import PREPROCESSES
from forensics.runs import FAILED, PERTURBED, RESULT, SCORES, read_result, shown

SWEEP = "sweep.json"
"""What jobs a sweep has, in the sweep's folder."""

MAY_DIFFER = (
    "seed", "preprocess", "dataset.train_on", "dataset.match", "dataset.root", "dataset.folders",
    "name", "cache_dir", "resume", "trainer", "perturb",
)  # fmt: skip
"""Settings, or groups of them, in which the runs of a study may differ."""


class Problem(NamedTuple):
    """A job that has no result.

    Attributes:
        folder: where it should be.
        reason: what is known of why.
        overrides: what it was to be run with, where that is known.
    """

    folder: Path
    reason: str
    overrides: str


class Run:
    """One whole run of ``train.py``.

    Attributes:
        folder: its folder.
        result: what its ``result.json`` holds.
        match: how all its images were matched.
        preprocess: how its training images were preprocessed; after a comma, if they were matched,
            how.
        seed: its seed.
        train_on: the generators it was trained on.
    """

    def __init__(self, folder: Path) -> None:
        """Read the result.

        Raises:
            UserError: if the folder holds no whole run of ``train.py``.
        """
        self.folder, self.result = folder, read_result(folder)
        if "pairs" not in self.result:
            raise UserError(
                f"{shown(folder)} is a run of another program than train.py: leave it out."
            )
        self.match: str = self.result["settings"]["dataset"].get("match", "none")
        matched = "" if self.match == "none" else f", match={self.match}"
        self.preprocess: str = self.result["preprocess"] + matched
        self.seed: int = self.result["settings"]["seed"]
        self.train_on = tuple(self.result["settings"]["dataset"]["train_on"])

    @cached_property
    def tested(self) -> list[dict[str, str]]:
        """Source and path of each tested image, in the order of the test."""
        table = pq.read_table(self.folder / SCORES, filters=[("split", "=", "test")])
        return cast(list[dict[str, str]], table.select(["source", "path"]).to_pylist())

    @cached_property
    def logits(self) -> dict[str, NDArray[np.float64]]:
        """Logits of the tested images by source, in the order of the test."""
        table = pq.read_table(self.folder / SCORES, filters=[("split", "=", "test")])
        return _by_source(table.to_pydict())

    @cached_property
    def perturbed(self) -> dict[tuple[str, float], dict[str, NDArray[np.float64]]]:
        """Logits of the tested images by source, for each perturbation and strength measured."""
        if not (self.folder / PERTURBED).exists():
            return {}
        rows = pq.read_table(self.folder / PERTURBED).to_pylist()
        under: dict[tuple[str, float], dict[str, list[Any]]] = {}
        for row in rows:
            key = row["perturbation"], round(row["strength"], 6)
            columns = under.setdefault(key, defaultdict(list))
            columns["source"].append(row["source"])
            columns["logit"].append(row["logit"])
        return {key: _by_source(columns) for key, columns in under.items()}

    def check(self) -> None:
        """Measure again from the scores.

        Raises:
            UserError: if ``result.json`` says something else.
        """
        for pair in self.result["pairs"]:
            real, generated = (self.logits[pair[key]] for key in ("real", "generator"))
            temperature = self.result["temperature"]
            ranking = ranking_values(real / temperature, generated / temperature)
            measured = {"ranking": ranking} | {
                f"at_{name}": at_threshold(real, generated, threshold)
                for name, threshold in self.result["thresholds"].items()
            }
            for part, metrics in measured.items():
                for name, value in metrics.items():
                    said = pair[part].get(name)
                    if isinstance(value, float) and (said is None or abs(said - value) > 1e-6):
                        raise UserError(
                            f"{shown(self.folder)}: {SCORES} gives {name} {value:.6f} for "
                            f"{pair['generator']}, {RESULT} says {said}: one of them was changed; "
                            "run it again."
                        )


def _by_source(columns: Mapping[str, Sequence[Any]]) -> dict[str, NDArray[np.float64]]:
    logits: dict[str, list[float]] = defaultdict(list)
    for source, logit in zip(columns["source"], columns["logit"], strict=True):
        logits[source].append(logit)
    return {source: np.array(values) for source, values in logits.items()}


class Study(NamedTuple):
    """Runs that may be compared.

    Attributes:
        runs: by what they were trained on, preprocess and seed.
        problems: jobs without a result.
        commands: the sweeps' command lines.
    """

    runs: list[Run]
    problems: list[Problem]
    commands: list[str]

    @property
    def preprocesses(self) -> list[str]:
        """Every preprocess, the paper's in the order of its table, then those from outside."""
        order = list(PREPROCESSES)
        trained = sorted({run.preprocess for run in self.runs})
        return sorted(trained, key=lambda p: order.index(p) if p in order else len(order))

    @property
    def train_sets(self) -> list[tuple[str, ...]]:
        """Every set of generators trained on, smallest first."""
        return sorted(dict.fromkeys(run.train_on for run in self.runs), key=len)

    @property
    def toy(self) -> bool:
        """Whether any run is of the toy faces."""
        return any(run.result["toy"] for run in self.runs)

    def of(self, train_on: tuple[str, ...], preprocess: str) -> list[Run]:
        """The runs of one way to train, by seed."""
        chosen = (r for r in self.runs if (r.train_on, r.preprocess) == (train_on, preprocess))
        return sorted(chosen, key=lambda run: run.seed)

    def pairs(self) -> list[tuple[str, str]]:
        """Every tested pair of a real source and a generator, in the order of the first runs."""
        return list(
            dict.fromkeys((p["real"], p["generator"]) for r in self.runs for p in r.result["pairs"])
        )


def pair_of(
    runs: Iterable[Run], real: str, generator: str, threshold: str,
    under: tuple[str, float] | None = None,
) -> Pair:  # fmt: skip
    """Scores of one tested pair by several runs.

    Args:
        runs: one of each seed.
        real: the real source.
        generator: the generated one.
        threshold: its name in ``result.json``.
        under: perturbation and strength; None is the plain test.
    """
    runs = list(runs)
    scores = [run.logits if under is None else run.perturbed[under] for run in runs]
    return Pair(
        np.stack([logits[real] for logits in scores]),
        np.stack([logits[generator] for logits in scores]),
        np.array([run.result["thresholds"][threshold] for run in runs]),
    )


def read_study(folders: Sequence[Path]) -> Study:
    """Read folders of runs and of sweeps, and make sure that what they hold can be compared.

    Args:
        folders: run folders, or folders with run folders in them.

    Raises:
        UserError: if one holds no run, no run is whole, two are the same training, they tested
            different images or differ in more than `MAY_DIFFER`, or scores and result disagree.
    """
    runs: dict[Path, Run] = {}
    problems: dict[Path, Problem] = {}
    commands: list[str] = []
    for folder in folders:
        jobs = {inner: "" for inner in ([folder] if _is_job(folder) else _job_folders(folder))}
        if (folder / SWEEP).exists():
            record = json.loads((folder / SWEEP).read_text())
            commands.append(record["command"])
            # Others were begun by an earlier command; without a result they are nobody's any more.
            jobs = {job: "" for job in jobs if (job / RESULT).exists()}
            jobs |= {folder / job["folder"]: " ".join(job["overrides"]) for job in record["jobs"]}
        if not jobs:
            raise UserError(
                f"{shown(folder)} holds no run of train.py: name run folders or a sweep's."
            )
        for job, overrides in jobs.items():
            if (job / RESULT).exists():
                runs[job.resolve()] = Run(job)
            else:
                problems[job.resolve()] = Problem(job, _reason(job), overrides)
    if not runs:
        problem = next(iter(problems.values()))
        raise UserError(
            f"None of the {len(problems)} jobs has a result, the first is "
            f"{shown(problem.folder)} ({problem.reason}): run them again."
        )
    ordered = list(runs.values())
    _refuse_what_differs(ordered)
    for run in ordered:
        run.check()
    return Study(ordered, list(problems.values()), commands)


def _is_job(folder: Path) -> bool:
    return any((folder / name).exists() for name in (RESULT, FAILED, ".hydra"))


def _job_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: name run folders or a sweep's.")
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and _is_job(inner))


def _reason(job: Path) -> str:
    if (job / FAILED).exists():
        return f"failed: {json.loads((job / FAILED).read_text())['error']}"
    if (job / ".hydra").exists():
        return "was stopped, or runs still"
    return "was never begun, or failed before it had a folder"


def _refuse_what_differs(runs: list[Run]) -> None:
    first = runs[0]
    trained: dict[tuple[Any, ...], Run] = {}
    tested: dict[tuple[str, str], tuple[str, Run]] = {}
    matches: dict[str, Run] = {first.match: first}
    of_preprocess: dict[str, tuple[Any, Run]] = {}
    for run in runs:
        key = _difference(first.result, run.result)
        if key is not None:
            raise UserError(
                f"{shown(first.folder)} and {shown(run.folder)} differ in {key}: a report "
                "compares runs that differ in preprocess, dataset.train_on, dataset.match and "
                "seed; leave one out."
            )
        settings = run.result["settings"]["preprocess"]
        known, other = of_preprocess.setdefault(run.preprocess, (settings, run))
        if known != settings:
            raise UserError(
                f"{shown(other.folder)} and {shown(run.folder)} have different settings of "
                f"preprocess={run.preprocess}: {known} and {settings}; leave one out."
            )
        same = run.train_on, run.preprocess, run.seed
        if same in trained:
            raise UserError(
                f"{shown(trained[same].folder)} and {shown(run.folder)} are the same training "
                f"(preprocess={run.preprocess}, seed={run.seed}, "
                f"train_on={'+'.join(run.train_on)}): leave one out."
            )
        trained[same] = run
        for source, images in run.result["test_hashes"].items():
            known_images, other = tested.setdefault((run.match, source), (images, run))
            if known_images != images:
                counts = [one.result["images"]["test"][source] for one in (other, run)]
                how = (
                    f"{counts[0]} and {counts[1]} of them"
                    if counts[0] != counts[1]
                    else f"{counts[0]} each, but other ones"
                )
                raise UserError(
                    f"{shown(other.folder)} and {shown(run.folder)} tested different images of "
                    f"{source} ({how}), so their figures cannot be compared: leave one out, or "
                    "run both on the same folders and counts."
                )
        # Matched pixels are others; the pictures must be the same.
        if matches.setdefault(run.match, run) is run and run.tested != first.tested:
            raise UserError(
                f"{shown(first.folder)} and {shown(run.folder)}, which differ in dataset.match, "
                "tested different images, so their figures cannot be compared: leave one out, or "
                "run both on the same folders and counts."
            )


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first setting in which two results differ and may not."""

    def walk(prefix: str, a: Any, b: Any) -> Iterable[str]:  # noqa: ANN401
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted({*a, *b}):
                if prefix + key not in MAY_DIFFER:
                    yield from walk(f"{prefix}{key}.", a.get(key), b.get(key))
        elif a != b:
            yield prefix.removesuffix(".")

    if one["model"] != other["model"]:
        return "model"
    return next(iter(walk("", one["settings"], other["settings"])), None)
