"""The folder of a run: its output files, and how it is claimed.

``.hydra/``, the record of its start; TensorBoard's events; ``epochs.csv``, the metrics of each
epoch; ``checkpoints/``; then, at the end,
``detector.safetensors``, ``scores.parquet``, ``features.parquet``, ``perturbed.parquet``, the most
confident errors in ``mistakes/`` and, last, ``result.json``: a run with it is complete. A failed
run has ``failed.json`` instead.
"""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

from forensics.errors import UserError
from forensics.files import atomic, parsed, remove_unfinished

# Lightning and Hydra are imported where they are used: they take longest to import, and scoring
# needs neither.
if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

RESULT, SCORES, FAILED = "result.json", "scores.parquet", "failed.json"
EVALUATION = "evaluation.json"
SWEEP = "sweep.json"
FEATURES, PERTURBED, MISTAKES = "features.parquet", "perturbed.parquet", "mistakes"
DETECTOR, GENERATOR = "detector.safetensors", "generator.safetensors"
CHECKPOINTS, EPOCHS = "checkpoints", "epochs.csv"
LOCK = ".lock"


def evaluated(name: str, number: int) -> str:
    """File name in an evaluation's folder for the n-th detector, from the name in a run."""
    path = Path(name)
    return f"{path.stem}_{number}{path.suffix}"


def on_first_device() -> bool:
    """Whether this process is the one that prints and writes."""
    from pytorch_lightning.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def take_rank(rank: int) -> None:
    """Set which of the processes of a run this is; 0 is the one that prints and writes."""
    from pytorch_lightning.utilities import rank_zero_only

    rank_zero_only.rank = rank  # type: ignore[attr-defined]


def shown(folder: Path) -> Path:
    """A folder relative to the current folder, if it is below it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


@contextmanager
def locked(folder: Path, file: Path | None = None) -> Iterator[None]:
    """Context in which no other process has a folder; also lost with the process, however it ends.

    Args:
        folder: the folder.
        file: the lock's file; None is one in the folder.

    Raises:
        UserError: if another process has it.
    """
    lock = FileLock(file or folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{shown(folder)} is in use by another process: wait for its end, or choose another.",
            key=str(folder),
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def claimed(
    folder: Path, hydra: "HydraConf", config: "DictConfig", *, resuming: bool
) -> Iterator[None]:
    """Context in which a folder belongs to one run, whose start it records.

    Of several processes one gets the folder, and loses it only with its end, in whatever way.
    Hydra would write its record before these checks, over that of an existing run; so it is
    configured not to, and the record is written here.

    Args:
        folder: the run's folder; created if missing.
        hydra: the node ``hydra`` of this job's config.
        config: the rest of the config.
        resuming: whether the folder's run is resumed.

    Raises:
        UserError: if the folder is in use, has another run's results or checkpoints, or cannot be
            written.
    """
    with ExitStack() as own:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            own.enter_context(locked(folder))
            _refuse_taken(folder, config, resuming=resuming)
            _record(folder, hydra, config)
        except OSError as error:
            raise _unwritable(folder, error) from error
        yield


def _refuse_taken(folder: Path, config: "DictConfig", *, resuming: bool) -> None:
    """Refuse a folder with another run's results or checkpoints."""
    result = folder / RESULT
    if not resuming:
        complete = {RESULT: "a complete run", EVALUATION: "a complete evaluation", SWEEP: "a sweep"}
        for name, what in complete.items():
            if (folder / name).exists():
                raise UserError(
                    f"{shown(folder)} has {what}: choose another folder with name=NAME, or remove "
                    "it.",
                    key=str(folder),
                )
        if (folder / CHECKPOINTS).exists():
            raise UserError(
                f"{shown(folder)} has a stopped run: resume it with "
                f"resume={shown(folder)}, or choose another folder with name=NAME."
            )
    elif result.exists():
        epochs = read_result(folder)["settings"]["max_epochs"]
        if config.max_epochs <= epochs:
            raise UserError(
                f"{shown(folder)} is complete after its {epochs} epochs: to train it longer, add "
                f"max_epochs=N with N above {epochs}."
            )


def _record(folder: Path, hydra: "HydraConf", config: "DictConfig") -> None:
    """Record how a run was started, and remove what a killed or failed one has left."""
    from omegaconf import OmegaConf

    record = folder / ".hydra"
    record.mkdir(exist_ok=True)
    for place in (folder, record, folder / CHECKPOINTS, folder / MISTAKES):
        remove_unfinished(place)
    for name, content in (
        # Values, because what they were computed from may differ when the run is resumed.
        ("config.yaml", OmegaConf.to_yaml(config, resolve=True)),
        ("hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra}))),
        ("overrides.yaml", OmegaConf.to_yaml(hydra.overrides.task)),
    ):
        with atomic(record / name) as file:
            file.write(content.encode())
    (folder / FAILED).unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot write into {folder} ({error.strerror}): choose another place with "
        "hydra.run.dir=FOLDER.",
        key=str(folder),
    )


def read_result(folder: Path) -> dict[str, Any]:
    """Read the result of a complete run.

    Raises:
        UserError: if the folder has no complete run.
    """
    try:
        return dict(parsed((folder / RESULT).read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder} has no complete run ({error}): its {RESULT} is written last; finish it "
            f"with resume={folder}."
        ) from error


def provenance(device: torch.device) -> dict[str, Any]:
    """Provenance of a result: code, libraries, machine."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    packages = ("forensics", "torch", "torchvision", "pytorch-lightning", "numpy", "pillow")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed": None if changes is None else changes != "",
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in packages},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str | None:
    """Output of a git command on the running code, None if it is not a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # run from a checkout without being installed


def device_name(device: torch.device) -> str:
    """Name of a GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
