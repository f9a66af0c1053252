"""Folders of runs and sweeps, before their work begins."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from forensics import files, runs
from forensics.checks import expanded, run_name
from forensics.errors import UserError
from forensics.launch import entry
from forensics.launch.arguments import quoted


class OwnFolder(Callback):
    """Gives every run and sweep a folder of its own; registered in ``conf/*.yaml``.

    A default folder, named by the time, gets a number if it exists, so that programs started in the
    same second do not share it; the processes that a launcher starts for one run must, so they need
    a name. Any other is taken as given: `forensics.runs.claimed` refuses one
    that is in use. In all of them ``~`` is the home folder.

    Attributes:
        sweep: holds the folder of the sweep that this process runs.
    """

    sweep: ClassVar[ExitStack] = ExitStack()

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Choose the folder of a single run; a numbered one is also the run's name."""
        with entry.past_hydra():
            with _for_resolvers(config):
                run_name(str(config.name))  # before Hydra makes the folder
            if "trainer" in config and _is_timed(config, "hydra.run.dir"):
                _refuse_processes_without_name(config.trainer.devices, config.trainer.nodes)
            folder, number = _own(config, "hydra.run.dir")
            with _for_resolvers(config):
                if _is_timed(config, "name"):
                    config.name = f"{config.name}{number}"
            config.hydra.run.dir = str(folder)

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Choose the folder of a sweep, and refuse one whose sweep is still running."""
        with entry.past_hydra():
            folder, _number = _own(config, "hydra.sweep.dir")
            config.hydra.sweep.dir = str(folder)
            # The configs of the jobs are composed from this list.
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(folder))}")
            folder.mkdir(parents=True, exist_ok=True)
            OwnFolder.sweep.close()  # an earlier one of this process
            OwnFolder.sweep.enter_context(runs.locked(folder))
            files.remove_unfinished(folder)


def _refuse_processes_without_name(devices: int, nodes: int) -> None:
    # Imported here, because `evaluate.py` does not need it.
    from forensics.training.trainer import started_by_launcher

    if started_by_launcher(devices, nodes):
        raise UserError(
            f"A launcher has started {devices * nodes} processes for this run: add name=NAME, so "
            "that they share a folder.",
            key="name",
        )


def _own(config: DictConfig, key: str) -> tuple[Path, str]:
    """The folder to use, created if it is a timed one, and what was appended to its name."""
    with _for_resolvers(config):
        given = Path(expanded(key, str(OmegaConf.select(config, key))))
    if not _is_timed(config, key):
        return given, ""
    given.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        appended = "" if number == 1 else f"_{number}"
        try:
            (folder := given.with_name(f"{given.name}{appended}")).mkdir()
        except FileExistsError:
            continue
        return folder, appended
    raise AssertionError  # there are more numbers than folders


def _is_timed(config: DictConfig, key: str) -> bool:
    """Whether a setting contains the current time, itself or by ``${name}``."""
    group, _, name = key.rpartition(".")
    above: Any = OmegaConf.select(config, group) if group else config
    text = str(above._get_node(name)._value())
    return "${now:" in text or ("${name}" in text and _is_timed(config, "name"))


@contextmanager
def _for_resolvers(config: DictConfig) -> Iterator[None]:
    """Context in which ``${hydra:...}`` in a config has a value."""
    former = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = former
        OmegaConf.set_readonly(config.hydra, False)
