"""From scores to what ``result.json`` says of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forensics.data.datamodule import FaceData
from forensics.data.splits import Part
from forensics.errors import UserError
from forensics.evaluation.calibration import FALSE_ALARM_RATES, fit_temperature, source_threshold
from forensics.evaluation.metrics import at_threshold, ranking, sigmoid
from forensics.evaluation.spectra import nearest, profiles
from forensics.task import Scores

PROFILED_IMAGES = 1000
"""At most so many of a source: their mean and spread hardly change with more."""
UNLIKE_SHARE = 0.01
"""Share of the validation images whose spectra count as unlike those of training."""


def part_columns(data: FaceData, part: str, scores: Scores) -> dict[str, list[Any]]:
    """Scores of one part of the split as columns source, path, label and logit.

    Args:
        data: whose split the scores are of.
        part: ``validation`` or ``test``.
        scores: of that part.

    Raises:
        UserError: if a logit is not finite; it names the images.
    """
    images: Part = getattr(data.split, part)
    columns: dict[str, list[Any]] = {"source": [], "path": [], "label": [], "logit": []}
    for source, row, logit in zip(
        images.source[scores.positions], images.row[scores.positions], scores.logits, strict=True
    ):
        columns["source"].append(data.sources[source].name)
        columns["path"].append(data.sources[source].paths[row])
        columns["label"].append(int(source < len(data.settings.real)))
        columns["logit"].append(logit)
    broken = np.flatnonzero(~np.isfinite(columns["logit"]))
    if len(broken):
        first = [f"{columns['source'][i]}/{columns['path'][i]}" for i in broken[:5]]
        raise UserError(
            f"{len(broken)} images got a score that is no finite number, the first "
            f"{', '.join(first)}: train again with a lower learning_rate."
        )
    return columns


def score_columns(data: FaceData, validation: Scores, test: Scores) -> dict[str, Any]:
    """Scores of both parts as columns source, path, split, label and logit.

    Raises:
        UserError: if a logit is not finite; it names the images.
    """
    parts = {"validation": validation, "test": test}
    columns = {name: part_columns(data, name, scores) for name, scores in parts.items()}
    merged = {
        key: columns["validation"][key] + columns["test"][key] for key in columns["validation"]
    }
    return merged | {
        "split": [name for name, scores in parts.items() for _ in range(len(scores.logits))]
    }


class Scored(NamedTuple):
    """The tested images of one source.

    Attributes:
        name: the source's.
        real: whether they are real.
        seen: whether the detector was trained on the source.
        logits: ``(n,)`` finite, one an image.
    """

    name: str
    real: bool
    seen: bool
    logits: NDArray[np.floating]


def scored_sources(data: FaceData, test: Scores) -> list[Scored]:
    """The scores of a test part by their sources."""
    settings = data.settings
    owner = data.split.test.source[test.positions]
    return [
        Scored(
            source.name,
            position < len(settings.real),
            source.name in (*settings.real, *settings.train_on),
            test.logits[owner == position],
        )
        for position, source in enumerate(data.sources)
    ]


def calibrate(data: FaceData, validation: Scores) -> tuple[dict[str, float], float]:
    """What turns logits into verdicts and probabilities, from validation images alone.

    Returns:
        Thresholds as logits, by name: ``0.5`` and ``source_<share of validation reals below>``;
        then the temperature.
    """
    real = data.split.validation.source[validation.positions] < len(data.settings.real)
    reals, generated = validation.logits[real], validation.logits[~real]
    thresholds = {"0.5": 0.0}
    thresholds |= {f"source_{rate}": source_threshold(reals, rate) for rate in FALSE_ALARM_RATES}
    return thresholds, fit_temperature(reals, generated)


def training_spectra(data: FaceData) -> tuple[dict[str, dict[str, list[float]]], float]:
    """How the spectra of training images look, to know images unlike them.

    Returns:
        By source that was trained on, ``mean`` and ``std`` of the radial profiles of some training
        images; then the distance, as `forensics.evaluation.spectra.nearest` has it, that one
        validation image in a hundred exceeds.
    """
    spectra: dict[str, dict[str, list[float]]] = {}
    for position, source in enumerate(data.sources):
        rows = data.split.train.row[data.split.train.source == position]
        if len(rows):
            of_source = profiles(source.rows[rows[:PROFILED_IMAGES]])
            mean, std = of_source.mean(axis=0), of_source.std(axis=0)
            spectra[source.name] = {"mean": mean.tolist(), "std": std.tolist()}
    held_out = data.split.validation
    distances: list[float] = []
    for position, source in enumerate(data.sources):
        rows = held_out.row[held_out.source == position]
        if len(rows):
            of_source = profiles(source.rows[rows[:PROFILED_IMAGES]])
            distances.extend(nearest(of_source, spectra))
    return spectra, float(np.quantile(distances, 1 - UNLIKE_SHARE))


def measure(
    scored: Sequence[Scored], thresholds: Mapping[str, float], temperature: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All metrics of some tested sources.

    Args:
        scored: real and generated ones, in any number.
        thresholds: logits by name.
        temperature: turns logits into the probabilities whose calibration is measured.
        seed: of the bootstrap.

    Returns:
        A list of every source and one of every pair of a real and a generated one.
    """
    none = np.empty(0, np.float32)
    sources = []
    for source in scored:
        reals, generated = (source.logits, none) if source.real else (none, source.logits)
        rate = "tpr" if source.real else "tnr"
        row: dict[str, Any] = {
            "source": source.name,
            "real": source.real,
            "seen": source.seen,
            "n": len(source.logits),
            "mean_probability_real": float(sigmoid(source.logits / temperature).mean()),
        }
        for name, threshold in thresholds.items():
            at = at_threshold(reals, generated, threshold)
            row |= {f"{rate}_at_{name}": at[rate]}
            row |= {f"{rate}_at_{name}_interval": at[f"{rate}_interval"]}
        sources.append(row)
    pairs = []
    for real in (source for source in scored if source.real):
        for generator in (source for source in scored if not source.real):
            # In float64, where the division keeps every order that float32 had.
            reals, generated = (
                source.logits.astype(np.float64) / temperature for source in (real, generator)
            )
            pairs.append(
                {
                    "real": real.name,
                    "generator": generator.name,
                    "seen": generator.seen,
                    "n_real": len(real.logits),
                    "n_generated": len(generator.logits),
                    "ranking": ranking(reals, generated, seed),
                }
                | {
                    f"at_{name}": at_threshold(real.logits, generator.logits, threshold)
                    for name, threshold in thresholds.items()
                }
            )
    return sources, pairs
