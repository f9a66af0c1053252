"""Start of a training from a trained detector's weights."""

import dataclasses
from pathlib import Path
from typing import Any

from forensics import checks
from forensics.data.settings import DatasetSettings
from forensics.detectors import Detector
from forensics.detectors.base import Optimization
from forensics.detectors.card import DetectorCard
from forensics.detectors.trained import load_detector
from forensics.errors import UserError


def start_from(detector: Detector, path: str, name: str, settings: Any) -> None:  # noqa: ANN401
    """Set a detector's weights to those of a trained one of the same network.

    Args:
        detector: the detector; afterwards it is made from the trained one.
        path: a run's folder or its ``detector.safetensors``.
        name: the detector's name, a key of `forensics.detectors.DETECTORS`.
        settings: its settings; those of the optimizer may differ from the trained one's.

    Raises:
        UserError: if the file cannot be read, has another network, or the detector is not trained
            by gradient.
    """
    if detector.optimizer() is None:
        raise UserError(
            f"init={path} continues a training by gradient, but a {name} is not trained that way: "
            "leave out init.",
            key="init",
        )
    trained = load_detector(Path(path))
    card = trained.card
    checks.require(card.model == name, "model", name, f"be {card.model}, as in init={path}")
    free = {field.name for field in dataclasses.fields(Optimization)}
    given = checks.plain(settings)
    theirs = checks.plain(type(settings)(**card.model_settings))
    for key in given.keys() - free:
        same = given[key] == theirs[key]
        required = f"be {theirs[key]}, as in init={path}"
        checks.require(same, f"model.{key}", given[key], required)
    detector.load_state_dict(trained.detector.state_dict())
    detector.made_from = [card]


def check_preparation(cards: list[DetectorCard], dataset: DatasetSettings) -> None:
    """Refuse detectors that were trained on images prepared in another way.

    Args:
        cards: metadata of the detectors that a run starts from.
        dataset: the run's.

    Raises:
        UserError: if a setting differs, with its key.
    """
    for card in cards:
        for key in ("image_size", "resize_filter", "view", "match"):
            value, theirs = getattr(dataset, key), getattr(card.input, key)
            required = f"be {theirs}, as for the trained {card.model} that it starts from"
            checks.require(value == theirs, f"dataset.{key}", value, required)
