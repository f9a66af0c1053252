"""A detector for other programs: a file of the format they read, and a card with its limits."""

import dataclasses
import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forensics import runs
from forensics.atomic import atomic
from forensics.data.images import MATCH_QUALITY, MATCH_SHARE, Match
from forensics.errors import UserError
from forensics.model_files import save_model
from forensics.reports.table import cell
from forensics.scoring import BATCH_SIZE, CERTAIN_GENERATED, CERTAIN_REAL, Card, Detector, limits

MODEL_CARD = "README.md"


class Scorer(nn.Module):
    """From grey levels to the calibrated probability of real, in one graph.

    Args:
        network: from ``(B, 3, S, S)`` float in [-1, 1] to ``(B,)`` logits.
        temperature: the detector's.
    """

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Score ``(B, 3, S, S)`` uint8; ``(B,)`` float32 probabilities of real."""
        logits: Tensor = self.network(images.float() / 127.5 - 1)
        return (logits / self.temperature).sigmoid()


def export(detector: Detector, format_: str, folder: Path) -> tuple[Path, float]:
    """Write a detector in a format, and hold what was written against the original.

    Args:
        detector: it.
        format_: one of `FORMATS`.
        folder: where; made if missing.

    Returns:
        The file, and the largest difference of its probabilities from the original's on images of
        noise, of one colour and of gradients.

    Raises:
        UserError: if a package that the format needs is not installed.
    """
    suffix, write, read = FORMATS[format_]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"detector{suffix}"
    # Contiguous, because exported graphs hold the weights as they lie in memory.
    network = detector.network.cpu().to(memory_format=torch.contiguous_format)
    scorer = Scorer(network, detector.card.temperature).eval()
    write(path, scorer, detector.card)
    images = _trial_images(detector.card.image_size).transpose(0, 3, 1, 2).copy()
    # In float32, as every format computes it, whatever numbers the detector was tested in.
    original, exported = _scores(scorer)(images), read(path)(images)
    return path, float(np.abs(exported - original).max())


def _trial_images(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``(BATCH_SIZE, size, size, 3)``; not a batch of the size that was exported with."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, size, size, 3), np.uint8)
    for number, grey in enumerate(range(0, 256, 51)):
        images[number] = grey
    images[-1] = np.linspace(0, 255, size, dtype=np.uint8)[:, None, None]
    images[-2] = images[-1].transpose(1, 0, 2)
    return images


def _need(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format onnx needs {', '.join(missing)}: pip install -c constraints.txt '.[export]'."
        )


def _write_onnx(path: Path, scorer: Scorer, card: Card) -> None:
    _need("onnx", "onnxscript", "onnxruntime")
    example = torch.zeros(2, 3, card.image_size, card.image_size, dtype=torch.uint8)
    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        program = torch.onnx.export(
            scorer,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["probability_real"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
    assert program is not None
    with atomic(path) as file:
        file.write(program.model_proto.SerializeToString())


def _read_onnx(path: Path) -> "Scores":
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"images": images})[0])


def _write_torch_export(path: Path, scorer: Scorer, card: Card) -> None:
    example = torch.zeros(2, 3, card.image_size, card.image_size, dtype=torch.uint8)
    batch = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(scorer, (example,), dynamic_shapes=batch)
    with atomic(path) as file:
        torch.export.save(program, file)


def _read_torch_export(path: Path) -> "Scores":
    return _scores(torch.export.load(path).module())


def _scores(scorer: nn.Module) -> "Scores":
    return lambda images: np.asarray(scorer(torch.from_numpy(images)).detach().numpy())


def _write_safetensors(path: Path, scorer: Scorer, card: Card) -> None:
    save_model(path, scorer.network, dataclasses.asdict(card))


def _read_safetensors(path: Path) -> "Scores":
    detector = Detector.load(path)
    return _scores(Scorer(detector.network.cpu(), detector.card.temperature))


Scores = Callable[[np.ndarray[Any, np.dtype[np.uint8]]], np.ndarray[Any, Any]]
FORMATS: dict[str, tuple[str, Callable[[Path, Scorer, Card], None], Callable[[Path], Scores]]] = {
    "onnx": (".onnx", _write_onnx, _read_onnx),
    "safetensors": (".safetensors", _write_safetensors, _read_safetensors),
    "torch-export": (".pt2", _write_torch_export, _read_torch_export),
}
"""By name: suffix, how to write, and how to read again as from images to probabilities."""


_MATCHED = {
    Match.none: "",
    Match.jpeg: f", then saved as JPEG of quality {MATCH_QUALITY}, 4:2:0, and read again",
    Match.resample: f", then made {MATCH_SHARE:g} times as large and as large as before",
}
"""What else the input of a detector has gone through, as a clause."""


def model_card(detector: Detector, result: Mapping[str, Any] | None) -> str:
    """What someone who is given the file should know, in Markdown.

    Args:
        detector: it.
        result: its run's ``result.json``, None if there is none beside it.
    """
    card = detector.card
    size = card.image_size
    thresholds = {
        name: 1 / (1 + np.exp(-threshold / card.temperature))
        for name, threshold in card.thresholds.items()
    }
    lines = [
        "# Detector of generated faces",
        "",
        f"A {card.model}, trained to tell images of {', '.join(card.real)} (real) from those of "
        f"{', '.join(card.trained_on)} (generated); preprocess in training: {card.preprocess}. "
        f"Weights sha256 {detector.sha256}, version {card.version}, commit {card.git_commit}.",
        "",
    ]
    if card.toy:
        lines += ["**Trained on toy faces that code drew: of no use on photographs.**", ""]
    lines += [
        "## Input and output",
        "",
        f"* In: `images`, `(B, 3, {size}, {size})` uint8 RGB grey levels: the middle square of the "
        f"upright picture, resized to {size} pixels by Pillow's antialiased {card.resize_filter} "
        f"filter (decode policy {card.decode_policy}){_MATCHED[Match(card.match)]}. Another way "
        "there gives other scores.",
        "* Out: `probability_real`, `(B,)` float32, calibrated by a temperature of "
        f"{card.temperature:.4g} on validation images.",
        f"* Real from {thresholds[CERTAIN_REAL]:.6g} on (5 % of the validation reals lie below), "
        f"generated below {thresholds[CERTAIN_GENERATED]:.6g} (1 % of them do), unsure between.",
        "",
        "## Results",
        "",
    ]
    if result is None:
        lines.append("Not in this file: they stand in `result.json` of the run.")
    else:
        lines += [
            "Percent, with 95 % intervals, on images that were not trained on.",
            "",
            "| test pair | n | threshold | ACC | TPR (reals called real) | TNR |",
            "|---|---|---|---|---|---|",
        ]
        for pair in result["pairs"]:
            seen = "seen" if pair["seen"] else "unseen"
            for name in result["thresholds"]:
                cells = [cell(pair[f"at_{name}"], metric) for metric in ("acc", "tpr", "tnr")]
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
        "Research on how detectors generalise. A score is no proof about a single picture, and not "
        "to be used as one about a person.",
        "",
    ]
    return "\n".join(lines)


def write_card(folder: Path, detector: Detector, source: Path) -> Path:
    """Write the model card; ``source`` is the run's folder or the file the detector came from."""
    home = source if source.is_dir() else source.parent
    result = runs.read_result(home) if (home / runs.RESULT).exists() else None
    path = folder / MODEL_CARD
    with atomic(path) as file:
        file.write(model_card(detector, result).encode())
    return path
