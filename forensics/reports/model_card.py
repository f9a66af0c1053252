"""Model card of an exported detector: input, output, results, limits."""

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
from forensics.images.geometry import MATCH_QUALITY, MATCH_SHARE, Match, View
from forensics.reports.tables import cell
from forensics.scoring.predictor import Predictor, limits

MODEL_CARD = "README.md"
_VIEWED = {
    View.resize: "resized to {0} pixels by Pillow's antialiased {1} filter",
    View.crop: "{0} of its native pixels",
}
_MATCHED = {
    Match.none: "",
    Match.jpeg: f", then saved as JPEG of quality {MATCH_QUALITY}, 4:2:0, and read again",
    Match.codec: "; for training, generated images were first saved with the JPEG qualities of the "
    "real ones",
    Match.resample: f", then downscaled to {MATCH_SHARE:g} of its size and upscaled back",
}
"""Further processing of a detector's input, as a clause."""


def model_card(detector: Predictor, result: Mapping[str, Any] | None) -> str:
    """Model card in Markdown.

    Args:
        detector: the detector.
        result: its run's ``result.json``, None if it is missing.
    """
    card, provenance = detector.card, detector.card.provenance
    size, calibration = card.input.side, card.calibration
    real, generated = (calibration.thresholds[name] for name in (CERTAIN_REAL, CERTAIN_GENERATED))
    output = "`scores`, `(B,)` float32, higher for real; not calibrated."
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
        f"A {card.model}, trained on images of {', '.join(provenance.real)} (real) and "
        f"{', '.join(provenance.trained_on) or 'none'} (generated); training augmentation: "
        f"{provenance.preprocess}. Weights sha256 {detector.sha256}, version "
        f"{provenance.version}, commit {provenance.git_commit}.",
        "",
    ]
    if provenance.toy:
        lines += ["**Trained on rendered toy faces: of no use on photographs.**", ""]
    lines += [
        "## Input and output",
        "",
        f"* Input: `images`, `(B, 3, {size}, {size})` uint8 RGB: the centre square of the upright "
        f"image, {_VIEWED[View(card.input.view)].format(size, card.input.resize_filter)} "
        f"(decode policy {card.input.decode_policy})"
        f"{_MATCHED[Match(card.input.match)]}. Other preparation gives other scores.",
        f"* Output: {output}",
        f"* Real from {real:.6g} on (5 % of the validation real images are below), generated below "
        f"{generated:.6g} (1 % of them are below), unsure between.",
        "",
        "## Results",
        "",
    ]
    if result is None:
        lines.append("See `result.json` of the run.")
    else:
        lines += [
            "Percent, with 95 % intervals, on test images. TPR is the share of real images called "
            "real, TNR the share of generated images called generated.",
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
        "* The exported graph has no verdict unsure: it gives such images a probability like any "
        "other. It computes in float32; if the detector was tested in bfloat16, its scores differ "
        "by rounding.",
        "",
        "## Intended use",
        "",
        "Research on the generalisation of detectors. A score is not proof that a single image is "
        "real or generated and must not be used as evidence against a person.",
        "",
    ]
    return "\n".join(lines)


def write_card(folder: Path, detector: Predictor, source: Path) -> Path:
    """Write the model card; ``source`` is the run's folder or the detector's file."""
    home = source if source.is_dir() else source.parent
    result = runs.read_result(home) if (home / runs.RESULT).exists() else None
    path = folder / MODEL_CARD
    with atomic(path) as file:
        file.write(model_card(detector, result).encode())
    return path
