"""The tested detectors of a study, and whether they are comparable."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forensics.detectors.card import CERTAIN_REAL
from forensics.errors import UserError
from forensics.evaluation.seeds import PairScores
from forensics.reports import form, tables
from forensics.reports.run import Run, in_order, is_complete, read_runs
from forensics.reports.variants import CIRCUMSTANCES, NO_VARIANT, Variant, order, variants
from forensics.runs import FAILED, SWEEP, shown


class Problem(NamedTuple):
    """A job that has no result.

    Attributes:
        folder: the job's folder.
        reason: the reason, as far as known.
        overrides: the job's overrides, if known.
    """

    folder: Path
    reason: str
    overrides: str


class Study(NamedTuple):
    """Comparable runs.

    Attributes:
        runs: in the order of their folders.
        groups: runs of one variant on the same training generators, by seed.
        problems: jobs without a result.
        commands: the sweeps' command lines.
    """

    runs: list[Run]
    groups: dict[tuple[tuple[str, ...], Variant], list[Run]]
    problems: list[Problem]
    commands: list[str]

    @property
    def variants(self) -> list[Variant]:
        """Every variant; the first one is the reference of differences."""
        return sorted(dict.fromkeys(variant for _, variant in self.groups), key=order)

    @property
    def train_sets(self) -> list[tuple[str, ...]]:
        """Every set of generators trained on, smallest first.

        In the order of the tested generators, so that in a grid of them the cells of the only seen,
        or the only unseen, generators are a diagonal.
        """
        tested = list(dict.fromkeys(generator for _, generator in self.pairs()))

        def order(train_on: tuple[str, ...]) -> tuple[int, list[bool]]:
            few = 2 * len(train_on) <= len(tested)
            return len(train_on), [(name in train_on) is not few for name in tested]

        return sorted(dict.fromkeys(train_on for train_on, _ in self.groups), key=order)

    @property
    def thresholds(self) -> list[str]:
        """Names of the thresholds that any run has."""
        return tables.in_order(name for run in self.runs for name in run.result["thresholds"])

    @property
    def threshold(self) -> str:
        """The threshold of comparisons: 0.5, the paper's, if every detector has it."""
        everywhere = all("0.5" in run.result["thresholds"] for run in self.runs)
        return "0.5" if everywhere else CERTAIN_REAL

    @property
    def toy(self) -> bool:
        """Whether any run is of the toy faces."""
        return any(run.result["toy"] for run in self.runs)

    @property
    def debug(self) -> bool:
        """Whether the runs are trials on a few images, by ``debug=quick``."""
        return any(run.result.get("debug") for run in self.runs)

    def of(self, train_on: tuple[str, ...], variant: Variant) -> list[Run]:
        """The runs of a training set and variant, by seed."""
        return self.groups.get((train_on, variant), [])

    def pairs(self) -> list[tuple[str, str]]:
        """Every tested pair of a real source and a generator, in the order of the first runs."""
        return list(dict.fromkeys(pair for run in self.runs for pair in run.pairs))


def pair_of(
    runs: Iterable[Run], real: str, generator: str, threshold: str,
    under: tuple[str, float] | None = None,
) -> PairScores:  # fmt: skip
    """Scores of one tested pair by several runs.

    Args:
        runs: one run per seed.
        real: the real source.
        generator: the generator.
        threshold: the threshold's name in ``result.json``.
        under: perturbation and strength; None for the test without perturbation.
    """
    runs = list(runs)
    scores = [run.logits if under is None else run.perturbed[under] for run in runs]
    return PairScores(
        np.stack([logits[real] for logits in scores]),
        np.stack([logits[generator] for logits in scores]),
        np.array([run.result["thresholds"][threshold] for run in runs]),
    )


def read_study(folders: Sequence[Path]) -> Study:
    """Read folders of runs and of sweeps, and check that the runs are comparable.

    Args:
        folders: folders of runs or evaluations, or folders that contain such folders.

    Raises:
        UserError: if a folder has no run, no run is complete, two are the same training, they
            tested different images, or scores and result disagree.
    """
    runs: dict[Path, list[Run]] = {}
    problems: dict[Path, Problem] = {}
    commands: list[str] = []
    for folder in folders:
        jobs = {inner: "" for inner in ([folder] if _is_job(folder) else _job_folders(folder))}
        if (folder / SWEEP).exists():
            record = form.read(folder / SWEEP, form.Sweep)
            for job in record["jobs"]:
                path = PurePath(job["folder"])
                inside = path.parts and not path.is_absolute() and ".." not in path.parts
                if not inside or "\0" in job["folder"]:
                    raise form.refused(folder / SWEEP, f"has a job in {path}, which is elsewhere")
            commands.append(record["command"])
            # Other jobs are from an earlier command; only those with a result are kept.
            others = [job for job in jobs if is_complete(job)]
            jobs = {folder / job["folder"]: " ".join(job["overrides"]) for job in record["jobs"]}
            jobs |= {job: "" for job in others if job not in jobs}
        if not jobs:
            raise UserError(
                f"{shown(folder)} holds no run of train.py and no evaluation: name their folders, "
                "or a sweep's.",
                key=str(folder),
            )
        for job, overrides in jobs.items():
            if is_complete(job):
                runs[job.resolve()] = read_runs(job)
            else:
                problems[job.resolve()] = Problem(job, _reason(job), overrides)
    if not runs:
        problem = next(iter(problems.values()))
        raise UserError(
            f"None of the {len(problems)} jobs has a result, the first is "
            f"{shown(problem.folder)} ({problem.reason}): run them again."
        )
    ordered = [run for of_folder in runs.values() for run in of_folder]
    _refuse_trials_among_others(ordered)
    groups = _grouped(ordered)
    _refuse_other_images(ordered)
    for run in ordered:
        run.check()
    return Study(ordered, groups, list(problems.values()), commands)


def _refuse_trials_among_others(runs: list[Run]) -> None:
    trials = [run for run in runs if run.result.get("debug")]
    if 0 < len(trials) < len(runs):
        raise UserError(
            f"{trials[0].name} was a trial with debug=quick, whose figures say nothing: leave it "
            "out, or train it completely.",
            key=trials[0].name,
        )


def _is_job(folder: Path) -> bool:
    return is_complete(folder) or any((folder / name).exists() for name in (FAILED, ".hydra"))


def _job_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: name run folders or a sweep's.")
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and _is_job(inner))


def _reason(job: Path) -> str:
    if (job / FAILED).exists():
        return f"failed: {form.read(job / FAILED, form.Failure)['error']}"
    if (job / ".hydra").exists():
        return "was stopped, or is still running"
    return "was never begun, or failed before it had a folder"


def _grouped(runs: list[Run]) -> dict[tuple[tuple[str, ...], Variant], list[Run]]:
    """Runs by training generators and variant, each by seed; the same training twice is refused."""
    settings = [run.settings for run in runs]
    of_runs = variants(settings, (*NO_VARIANT, *CIRCUMSTANCES))
    keys = [(run.train_on, of_run, run.seed) for run, of_run in zip(runs, of_runs, strict=True)]
    if len(set(keys)) < len(keys):
        of_runs = variants(settings, NO_VARIANT)
    groups: dict[tuple[tuple[str, ...], Variant], dict[int | str, Run]] = defaultdict(dict)
    for run, variant in zip(runs, of_runs, strict=True):
        seeds = groups[run.train_on, variant]
        if run.seed in seeds:
            raise UserError(
                f"{seeds[run.seed].name} and {run.name} are the same training "
                f"({variant.label}, seed={run.seed}, train_on={'+'.join(run.train_on)}): leave "
                "one out.",
                key=run.name,
            )
        seeds[run.seed] = run
    return {key: [seeds[seed] for seed in in_order(seeds)] for key, seeds in groups.items()}


def _refuse_other_images(runs: list[Run]) -> None:
    """Refuse runs that tested different pixels of a source or, prepared differently, images."""
    pixels: dict[tuple[tuple[str, ...], str], tuple[str, Run]] = {}
    images: dict[str, tuple[NDArray[np.str_], Run]] = {}
    for run in runs:
        for source, hash_ in run.result["test_hashes"].items():
            known, other = pixels.setdefault((run.handling, source), (hash_, run))
            if known != hash_:
                raise _other_images(other, run, source)
        for source, paths in run.tested().items():
            known_paths, other = images.setdefault(source, (paths, run))
            if not np.array_equal(known_paths, paths):
                raise _other_images(other, run, source)


def _other_images(first_run: Run, second_run: Run, source: str) -> UserError:
    first, second = (len(run.logits.get(source, ())) for run in (first_run, second_run))
    how = f"{first} and {second} images" if first != second else f"{first} images each"
    return UserError(
        f"{first_run.name} and {second_run.name} tested different images of {source} "
        f"({how}), so their figures cannot be compared: leave one out, or run both on the same "
        "folders and counts.",
        key=source,
    )
