"""What a run says first: where it computes, what it trains, on which images, into which folder."""

import logging
import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from forensics import runs
from forensics.compute import in_bfloat16
from forensics.data.datamodule import FaceData
from forensics.training.checkpoints import LAST, PREVIOUS
from forensics.training.settings import TrainerSettings

log = logging.getLogger(__name__)

_WIDTH, _NAMES = 80, 12


def say(facts: Mapping[str, str]) -> None:
    """Log facts, a line each, long ones wrapped."""
    for name, fact in facts.items():
        log.info(
            textwrap.fill(
                f"{name:<{_NAMES}}{fact}",
                _WIDTH,
                subsequent_indent=" " * _NAMES,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def place(settings: TrainerSettings, device: torch.device) -> str:
    """Devices, threads and numeric precision."""
    on_gpu = device.type == "cuda"
    several = f"{settings.all_devices} x " if settings.all_devices > 1 else ""
    threads = "" if on_gpu else f", {torch.get_num_threads()} threads"
    precision = "bfloat16" if in_bfloat16(settings.precision, on_gpu) else "float32"
    return f"{several}{runs.device_name(device)}{threads}, {precision}"


def size_of(network: nn.Module) -> str:
    """Number of parameters."""
    return f"{sum(weights.numel() for weights in network.parameters()):,} parameters"


def folder_of(folder: Path) -> str:
    """A run's folder, and whether the run is resumed."""
    resumed = any((folder / runs.CHECKPOINTS / name).exists() for name in (LAST, PREVIOUS))
    return f"{runs.shown(folder)}, {'resumed' if resumed else 'new'}"


def sources_of(data: FaceData) -> dict[str, str]:
    """Number of images of each source, by part of the split.

    Args:
        data: the data module, set up.
    """
    settings = data.settings
    unseen = {*settings.unseen_real, *settings.generators} - {*settings.train_on}
    marks = {name: " (unseen)" for name in unseen}
    facts = {}
    for part in ("train", "validation", "test"):
        counts = {
            source.name: getattr(data.split, part).count(position)
            for position, source in enumerate(data.sources)
        }
        facts[part] = ", ".join(
            f"{count} {name}{marks.get(name, '')}" for name, count in counts.items() if count
        )
    return facts
