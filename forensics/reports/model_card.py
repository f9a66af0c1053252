"""A card for a detector that is given away: input, output, results, limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forensics import runs
from forensics.detectors.card import (
    CERTAIN_GENERATED,
    CERTAIN_REAL,
)
from forensics.evaluation.metrics import AT_THRESHOLD
from forensics.files import atomic
from forensics.images.geometry import MATCH_QUALITY, MATCH_SHARE, Match
from forensics.reports.tables import cell
from forensics.scoring.predictor import Predictor, limits

MODEL_CARD = "README.md"
_MATCHED = {
    Match.none: "",
    Match.jpeg: f", then saved as JPEG of quality {MATCH_QUALITY}, 4:2:0, and read again",
    Match.resample: f", then made {MATCH_SHARE:g} times as large and as large as before",
}
"""Further processing of a detector's input, as a clause."""


def model_card(detector: Predictor, result: Mapping[str, Any] | None) -> str:
    """Model card in Markdown.

    Args:
        detector: it.
        result: its run's ``result.json``, None if there is none beside it.
    """
    card, provenance = detector.card, detector.card.provenance
    size, calibration = card.input.image_size, card.calibration
    real, generated = (calibration.thresholds[name] for name in (CERTAIN_REAL, CERTAIN_GENERATED))
    output = "`scores`, `(B,)` float32, higher for real; they could not be calibrated."
    if calibration.temperature is not None:
        real, generated = (calibration.probability_real(score) or 0 for score in (real, generated))
        output = (
            "`probability_real`, `(B,)` float32, calibrated by an offset of "
            f"{calibration.offset:.4g} and a temperature of {calibration.temperature:.4g} on "
            "validation images."
        )
    lines = [
        "# Detector of generated faces",
        "",
        f"A {card.model}, trained to tell images of {', '.join(provenance.real)} (real) from those "
        f"of {', '.join(provenance.trained_on) or 'nothing'} (generated); preprocess in training: "
        f"{provenance.preprocess}. Weights sha256 {detector.sha256}, version "
        f"{provenance.version}, commit {provenance.git_commit}.",
        "",
    ]
    if provenance.toy:
        lines += ["**Trained on toy faces that code drew: of no use on photographs.**", ""]
    lines += [
        "## Input and output",
        "",
        f"* In: `images`, `(B, 3, {size}, {size})` uint8 RGB grey levels: the middle square of the "
        "upright image, resized to "
        f"{size} pixels by Pillow's antialiased {card.input.resize_filter} filter (decode policy "
        f"{card.input.decode_policy}){_MATCHED[Match(card.input.match)]}. Another way "
        "there gives other scores.",
        f"* Out: {output}",
        f"* Real from {real:.6g} on (5 % of the validation real images are below), generated below "
        f"{generated:.6g} (1 % of them are), unsure between.",
        "",
        "## Results",
        "",
    ]
    if result is None:
        lines.append("Not in this file: they stand in `result.json` of the run.")
    else:
        lines += [
            "Percent, with 95 % intervals, on images that were not trained on. TPR is the share of "
            "reals called real, TNR that of generated called generated.",
            "",
            f"| test pair | n | threshold | {' | '.join(m.upper() for m in AT_THRESHOLD)} |",
            "|---|---|---|" + "---|" * len(AT_THRESHOLD),
        ]
        for pair in result["pairs"]:
            seen = "seen" if pair["seen"] else "unseen"
            for name in result["thresholds"]:
                cells = [cell(pair[f"at_{name}"], metric) for metric in AT_THRESHOLD]
                lines.append(
                    f"| {pair['real']} + {pair['generator']} ({seen}) | {pair['n_real']}+"
                    f"{pair['n_generated']} | {name.replace('_', ' ')} | {' | '.join(cells)} |"
                )
    lines += [
        "",
        "## Limits",
        "",
        *(f"* {limit}" for limit in limits(card)),
        "* The exported graph gives those a probability like any other. It computes in float32: "
        "where the detector was tested in bfloat16, its scores differ by that rounding.",
        "",
        "## Intended use",
        "",
        "Research on how detectors generalise. A score is no proof about a single image, and not "
        "to be used as one about a person.",
        "",
    ]
    return "\n".join(lines)


def write_card(folder: Path, detector: Predictor, source: Path) -> Path:
    """Write the model card; ``source`` is the run's folder or the file the detector came from."""
    home = source if source.is_dir() else source.parent
    result = runs.read_result(home) if (home / runs.RESULT).exists() else None
    path = folder / MODEL_CARD
    with atomic(path) as file:
        file.write(model_card(detector, result).encode())
    return path
