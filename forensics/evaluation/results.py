"""From scores to what ``result.json`` says of them."""

from typing import Any

import numpy as np

from forensics.data.datamodule import FaceData
from forensics.data.splits import Part
from forensics.errors import UserError
from forensics.evaluation.calibration import FALSE_ALARM_RATES, source_threshold
from forensics.evaluation.metrics import at_threshold, ranking, sigmoid
from forensics.task import Scores


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


def measure(
    data: FaceData, validation: Scores, test: Scores, seed: int
) -> tuple[dict[str, float], list[dict[str, Any]], list[dict[str, Any]]]:
    """All metrics of a run.

    Args:
        data: whose split the scores are of.
        validation: scores of the validation part, all the thresholds are set by.
        test: scores of the test part.
        seed: of the bootstrap.

    Returns:
        Thresholds as logits, by name: ``0.5`` and ``source_<share of validation reals below>``;
        then a list of every tested source and one of every pair of a real source and a generator.
    """
    real_count = len(data.settings.real)
    held_out = validation.logits[data.split.validation.source[validation.positions] < real_count]
    thresholds = {"0.5": 0.0}
    thresholds |= {f"source_{rate}": source_threshold(held_out, rate) for rate in FALSE_ALARM_RATES}
    none = np.empty(0, np.float32)

    logits = _by_source(data.split.test, test, len(data.sources))
    sources = []
    for position, source in enumerate(data.sources):
        of_class = logits[position]
        real = position < real_count
        reals, generated = (of_class, none) if real else (none, of_class)
        rate = "tpr" if real else "tnr"
        sources.append(
            {
                "source": source.name,
                "real": real,
                "seen": real or source.name in data.settings.train_on,
                "n": len(of_class),
                "mean_probability_real": float(sigmoid(of_class).mean()),
            }
            | {
                f"{rate}_at_{name}": at_threshold(reals, generated, threshold)[rate]
                for name, threshold in thresholds.items()
            }
        )
    pairs = []
    for real_position in range(real_count):
        for position in range(real_count, len(data.sources)):
            reals, generated = logits[real_position], logits[position]
            pairs.append(
                {
                    "real": data.sources[real_position].name,
                    "generator": data.sources[position].name,
                    "seen": data.sources[position].name in data.settings.train_on,
                    "n_real": len(reals),
                    "n_generated": len(generated),
                    "ranking": ranking(reals, generated, seed),
                }
                | {
                    f"at_{name}": at_threshold(reals, generated, threshold)
                    for name, threshold in thresholds.items()
                }
            )
    return thresholds, sources, pairs


def _by_source(part: Part, scores: Scores, sources: int) -> list[np.ndarray[Any, Any]]:
    owner = part.source[scores.positions]
    return [scores.logits[owner == source] for source in range(sources)]
