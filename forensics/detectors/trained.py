"""Reading of trained detectors from their files."""

from pathlib import Path
from typing import NamedTuple, cast

from forensics import runs
from forensics.compute import Precision
from forensics.detectors import DETECTORS, Detector, plugins
from forensics.detectors.card import UPGRADES, DetectorCard
from forensics.errors import UserError
from forensics.images.decode import EQUAL_POLICIES
from forensics.images.geometry import Match, ResizeFilter, View
from forensics.model_files import load_model


class TrainedDetector(NamedTuple):
    """A detector read from its file.

    Attributes:
        detector: the detector, in evaluation mode, on the CPU.
        card: metadata of its file.
        sha256: sha256 of its weights.
    """

    detector: Detector
    card: DetectorCard
    sha256: str


def load_detector(path: Path) -> TrainedDetector:
    """Read a detector file; no code in it is run.

    Args:
        path: a run's folder or its ``detector.safetensors``.

    Raises:
        UserError: if the file is missing, damaged, not a detector file or of another version.
    """
    path = _detector_file(path)
    plugins.load_installed()
    detector, content, sha256 = load_model(path, DETECTORS, UPGRADES, pretrained=False)
    try:
        card = DetectorCard.from_file(content)
        if card.input.decode_policy not in EQUAL_POLICIES:
            raise ValueError(
                f"decode_policy is {card.input.decode_policy}, this version's is "
                f"{max(EQUAL_POLICIES)}"
            )
        ResizeFilter(card.input.resize_filter)
        Match(card.input.match)
        View(card.input.view)
        Precision(card.input.precision)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path} cannot be used by this version ({error}): use the version that wrote it, "
            "or train it again.",
            key=str(path),
        ) from error
    return TrainedDetector(cast(Detector, detector), card, sha256)


def _detector_file(path: Path) -> Path:
    """The detector file that a path names.

    Raises:
        UserError: if there is none, with what there is instead.
    """
    if path.is_dir():
        if (path / runs.DETECTOR).is_file():
            return path / runs.DETECTOR
        below = sorted(path.glob(f"*/{runs.DETECTOR}"))
        runs_there = "a run's folder, with a result, instead"
        if below:
            runs_there = f"one of the {len(below)} runs in it, such as {below[-1].parent}"
        raise UserError(f"{path} has no {runs.DETECTOR}: name {runs_there}.", key=str(path))
    if path.suffix == ".ckpt":
        raise UserError(
            f"{path} is a checkpoint of a training, not a detector: name the run's folder.",
            key=str(path),
        )
    return path
