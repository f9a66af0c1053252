"""Export of a detector to a format of other programs."""

import importlib.util
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forensics.detectors import Detector
from forensics.detectors.card import DetectorCard
from forensics.errors import UserError
from forensics.files import atomic
from forensics.model_files import save_model
from forensics.scoring.predictor import Predictor

TRIALS = 32
"""Number of images on which the export is compared with the original."""


class Calibrated(nn.Module):
    """From pixel values to the calibrated probability of real, in one graph.

    For the view ``crop`` it takes the complete square; crops of a grid are made in the graph.

    Args:
        detector: maps ``(B, 3, S, S)`` float in [0, 255] to ``(B,)`` scores.
        card: its metadata; without offset and temperature the graph gives scores.
    """

    def __init__(self, detector: Detector, card: DetectorCard) -> None:
        super().__init__()
        self.detector, self._image_size = detector, card.input.image_size
        self._offset, self._temperature = card.calibration.offset, card.calibration.temperature

    @property
    def output(self) -> str:
        """Name of the graph's output."""
        return "scores" if self._temperature is None else "probability_real"

    def forward(self, images: Tensor) -> Tensor:
        """Score ``(B, 3, S, S)`` uint8; ``(B,)`` float32."""
        crops = self.detector.crops(images.float(), self._image_size)
        scores = torch.stack([self.detector(of_place) for of_place in crops]).mean(dim=0)
        if self._offset is None or self._temperature is None:
            return scores
        return ((scores - self._offset) / self._temperature).sigmoid()


def export(predictor: Predictor, format_: str, folder: Path) -> tuple[Path, float]:
    """Export a detector, and compare the export with the original.

    Args:
        predictor: the detector.
        format_: one of `FORMATS`.
        folder: the folder to write into; created if missing.

    Returns:
        The file, and the largest difference between its probabilities and the original's on images
        of noise, of one colour and of gradients.

    Raises:
        UserError: if a package that the format needs is not installed.
    """
    suffix, write, read = FORMATS[format_]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"detector{suffix}"
    # Contiguous, because exported graphs keep the weights' memory layout.
    detector = predictor.scorer.detector.cpu().to(memory_format=torch.contiguous_format)
    scorer = Calibrated(detector, predictor.card).eval()
    write(path, scorer, predictor.card)
    images = _trial_images(predictor.card.input.side).transpose(0, 3, 1, 2).copy()
    # In float32, as in every format, whatever precision the detector was tested in.
    original, exported = _scores(scorer)(images), read(path)(images)
    return path, float(np.abs(exported - original).max())


def _trial_images(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``(TRIALS, size, size, 3)``; another batch size than that of the export's example."""
    images = np.random.default_rng(0).integers(0, 256, (TRIALS, size, size, 3), np.uint8)
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


def _write_onnx(path: Path, scorer: Calibrated, card: DetectorCard) -> None:
    _need("onnx", "onnxscript", "onnxruntime")
    example = torch.zeros(2, 3, card.input.side, card.input.side, dtype=torch.uint8)
    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # internal warnings of torch's exporter
        program = torch.onnx.export(
            scorer,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=[scorer.output],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
    assert program is not None
    with atomic(path) as file:
        file.write(program.model_proto.SerializeToString())


def _read_onnx(path: Path) -> "Scores":
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"images": images})[0])


def _write_torch_export(path: Path, scorer: Calibrated, card: DetectorCard) -> None:
    example = torch.zeros(2, 3, card.input.side, card.input.side, dtype=torch.uint8)
    batch = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(scorer, (example,), dynamic_shapes=batch)
    with atomic(path) as file:
        torch.export.save(program, file)


def _read_torch_export(path: Path) -> "Scores":
    return _scores(torch.export.load(path).module())


def _scores(scorer: nn.Module) -> "Scores":
    return lambda images: np.asarray(scorer(torch.from_numpy(images)).detach().numpy())


def _write_safetensors(path: Path, scorer: Calibrated, card: DetectorCard) -> None:
    save_model(path, scorer.detector, card.to_file())


def _read_safetensors(path: Path) -> "Scores":
    predictor = Predictor.load(path)
    return _scores(Calibrated(predictor.scorer.detector.cpu(), predictor.card))


Scores = Callable[[np.ndarray[Any, np.dtype[np.uint8]]], np.ndarray[Any, Any]]
FORMATS: dict[
    str, tuple[str, Callable[[Path, Calibrated, DetectorCard], None], Callable[[Path], Scores]]
] = {
    "onnx": (".onnx", _write_onnx, _read_onnx),
    "safetensors": (".safetensors", _write_safetensors, _read_safetensors),
    "torch-export": (".pt2", _write_torch_export, _read_torch_export),
}
"""By name: suffix, writer, and reader, which returns a function from images to probabilities."""
