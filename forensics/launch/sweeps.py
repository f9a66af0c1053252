"""Sweeps: the record of a sweep's jobs, and which of them are complete.

A sweep's command can be repeated until the sweep is complete: complete jobs are skipped, stopped
jobs resume from their last checkpoint. After another command in the same folder, the sweep consists
of the jobs of that command and the complete jobs of earlier ones; other earlier jobs do not count
as missing.
"""

import json
import logging
import shlex
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from forensics import files, runs
from forensics.checks import dotted
from forensics.errors import UserError
from forensics.launch import entry
from forensics.launch.help import program
from forensics.training import checkpoints

log = logging.getLogger(__name__)


class SweepRecord(Callback):
    """Records the jobs of a sweep before the first one; registered in ``conf/train.yaml``.

    Attributes:
        folder: folder of the sweep that this process runs, None if it runs none.
    """

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Write ``sweep.json``; complete jobs of an earlier sweep in the folder are kept."""
        if not config.hydra.sweeper._target_.endswith(BasicSweeper.__name__):
            return  # a sweeper that chooses its jobs adaptively
        with entry.past_hydra():
            folder = Path(config.hydra.sweep.dir)
            folder.mkdir(parents=True, exist_ok=True)
            jobs = _jobs(config)
            if (folder / runs.SWEEP).exists():
                before = json.loads((folder / runs.SWEEP).read_text())["jobs"]
                complete = [
                    job for job in before if (folder / job["folder"] / runs.RESULT).exists()
                ]
                jobs = {job["folder"]: job["overrides"] for job in complete} | jobs
            files.write_json(
                folder / runs.SWEEP,
                {
                    "command": f"{program()} {shlex.join(sys.argv[1:])}",
                    "jobs": [
                        {"folder": name, "overrides": overrides} for name, overrides in jobs.items()
                    ],
                },
            )
            SweepRecord.folder = folder


def _jobs(config: DictConfig) -> dict[str, list[str]]:
    """The overrides of every job by its folder's name, as in `BasicSweeper` and launchers.

    Raises:
        UserError: if two jobs would share a folder.
    """
    loader = GlobalHydra.instance().config_loader()
    params = config.hydra.sweeper.params or {}
    given = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    parsed = OverridesParser.create(loader).parse_overrides(given)
    (every,) = BasicSweeper.split_arguments(parsed, None)
    jobs: dict[str, list[str]] = {}
    former = HydraConfig.instance().cfg
    try:
        for number, overrides in enumerate(every):
            job = loader.load_sweep_config(config, overrides)
            with open_dict(job):
                job.hydra.job.num = number
            HydraConfig.instance().set_config(job)
            name = str(OmegaConf.select(job, "hydra.sweep.subdir"))
            if name in jobs:
                raise UserError(
                    f"Two jobs of the sweep would share the folder {name}: let "
                    "hydra.sweep.subdir name everything that is swept."
                )
            jobs[name] = overrides
    finally:
        HydraConfig.instance().cfg = former
    return jobs


def is_done(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a job of a sweep has a result from an earlier start of the sweep.

    Args:
        folder: the job's folder.
        settings: the current settings by dotted keys.

    Raises:
        UserError: if the result has other settings.
    """
    if not entry.is_sweep() or not (folder / runs.RESULT).exists():
        return False
    result = runs.read_result(folder)
    theirs = dotted(result["settings"]) | {key: result[key] for key in ("model", "preprocess")}
    key = checkpoints.difference(theirs, settings, also=("max_epochs", "perturb"))
    if key is not None:
        raise UserError(
            f"{runs.shown(folder)} holds a run with another {key}: give the sweep another folder "
            "with hydra.sweep.dir=FOLDER."
        )
    log.info("%s is already complete", runs.shown(folder))
    return True


def results() -> list[dict[str, Any]]:
    """Results of the complete jobs of this job's sweep; none outside a sweep."""
    if not entry.is_sweep():
        return []
    folder = Path(HydraConfig.get().sweep.dir)
    return [runs.read_result(folder / name) for name in _jobs_of(folder)
            if (folder / name / runs.RESULT).exists()]  # fmt: skip


def _jobs_of(folder: Path) -> list[str]:
    """Names of the folders of a sweep's jobs, none for a sweeper that chooses them adaptively."""
    if not (folder / runs.SWEEP).exists():
        return []
    record = json.loads((folder / runs.SWEEP).read_text())
    return [job["folder"] for job in record["jobs"]]


def announce() -> None:
    """Log which job of its sweep this one is and, if jobs run one by one, the time left.

    The estimate is the median time of the sweep's complete jobs for each incomplete one.
    """
    jobs = _jobs_of(Path(HydraConfig.get().sweep.dir)) if entry.is_sweep() else []
    name = HydraConfig.get().sweep.subdir if jobs else None
    if name not in jobs:
        return
    place = f"job {jobs.index(name) + 1} of {len(jobs)}"
    seconds = [sum(result["seconds"].values()) for result in results()]
    if seconds and entry.launches_in_process():
        left = (len(jobs) - len(seconds)) * statistics.median(seconds)
        place += f", about {_duration(left)} left"
    log.info("\n%s: %s", place, name)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return "1 min"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def was_stopped(folder: Path) -> bool:
    """Whether a job of a sweep has checkpoints to resume from."""
    return entry.is_sweep() and (folder / runs.CHECKPOINTS).exists()


def ended() -> Path | None:
    """The folder of the sweep that this process has run, returned once; None after a single run."""
    folder, SweepRecord.folder = SweepRecord.folder, None
    return folder
