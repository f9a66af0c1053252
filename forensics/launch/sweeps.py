"""Sweeps: what jobs one has, which of them are done already.

A sweep can be run again, with the same command, until it is complete: jobs that have a result are
passed over, jobs that were stopped resume from their last checkpoint. With another command it has
the jobs of that one and, of earlier ones, those with a result; jobs that are no longer asked for
are not missing.
"""

import json
import logging
import shlex
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
from forensics.training import checkpoints

log = logging.getLogger(__name__)


class SweepRecord(Callback):
    """Writes down, before its first job, what jobs a sweep has; ``conf/train.yaml`` names it.

    Attributes:
        folder: of the sweep that this process runs, None if it runs none.
    """

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Write ``sweep.json``; complete jobs of an earlier sweep there stay in it."""
        if not config.hydra.sweeper._target_.endswith(BasicSweeper.__name__):
            return  # one that chooses its jobs as it goes
        try:
            folder = Path(config.hydra.sweep.dir)
            folder.mkdir(parents=True, exist_ok=True)
            jobs = _jobs(config)
            if (folder / runs.SWEEP).exists():
                before = json.loads((folder / runs.SWEEP).read_text())["jobs"]
                whole = [job for job in before if (folder / job["folder"] / runs.RESULT).exists()]
                jobs = {job["folder"]: job["overrides"] for job in whole} | jobs
            files.write_json(
                folder / runs.SWEEP,
                {
                    "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
                    "jobs": [{"folder": name, "overrides": one} for name, one in jobs.items()],
                },
            )
            SweepRecord.folder = folder
        except Exception as error:
            # Hydra would turn it into a warning.
            raise entry.PastHydra(error) from error


def _jobs(config: DictConfig) -> dict[str, list[str]]:
    """The overrides of every job by its folder's name, as `BasicSweeper` and launchers find them.

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
    """Whether a job of a sweep has its result from an earlier run of the sweep.

    Args:
        folder: the job's.
        settings: those of now, by dotted keys.

    Raises:
        UserError: if the result is of other settings.
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
    log.info("%s is done already", runs.shown(folder))
    return True


def was_stopped(folder: Path) -> bool:
    """Whether a job of a sweep has checkpoints to resume from."""
    return entry.is_sweep() and (folder / runs.CHECKPOINTS).exists()


def ended() -> Path | None:
    """The folder of the sweep that this process has run; None the second time, and after a run."""
    folder, SweepRecord.folder = SweepRecord.folder, None
    return folder
