"""`forensics export`: the file scores as the detector does, and the card says what it is."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NETWORK, SIZE, detector_card, residual_patches
from scipy.special import expit

from forensics.checks import plain
from forensics.cli import main
from forensics.detectors import DETECTORS
from forensics.detectors.card import UPGRADES
from forensics.detectors.front_ends import FrontEnd
from forensics.model_files import load_model, save_model
from forensics.scoring import Predictor

ONNX = ("onnx", "onnxruntime", "onnxscript")
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(one) is None for one in ONNX), reason="needs the extra export"
)


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(7).integers(0, 256, (count, 3, SIZE, SIZE), np.uint8)


def original(detector_file: Path, batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> object:
    """Worked out from the network, offset and temperature alone."""
    network, content, _ = load_model(detector_file, DETECTORS, UPGRADES, pretrained=False)
    with torch.no_grad():
        scores = network(torch.from_numpy(batch).float()).double().numpy()
    calibration = content["calibration"]
    standard = (scores - calibration["offset"]) / calibration["temperature"]
    return pytest.approx(expit(standard), abs=1e-6)


def recalibrated(detector_file: Path, **changes: float | None) -> None:
    """Write the detector's file again with another calibration."""
    network = load_model(detector_file, DETECTORS, UPGRADES, pretrained=False).model
    save_model(detector_file, network, detector_card(**changes).to_file())


def _exported(detector_file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What the exported graph gives."""
    program = torch.export.load(detector_file.parent / "export" / "detector.pt2")
    return np.asarray(program.module()(torch.from_numpy(images(3))).detach().numpy())


@pytest.mark.slow
class TestFormats:
    @needs_onnx
    @pytest.mark.filterwarnings("ignore")  # of torch's exporter, about itself
    @pytest.mark.parametrize("count", [1, 5])
    def test_onnx_scores_grey_levels_in_batches_of_any_size(
        self, detector_file: Path, count: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import onnx
        import onnxruntime

        assert main(["export", str(detector_file.parent), "--format", "onnx"]) == 0
        path = detector_file.parent / "export" / "detector.onnx"
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (got,) = session.run(["probability_real"], {"images": images(count)})
        assert got == original(detector_file, images(count))
        said = re.search(r"by (\S+) at most", capsys.readouterr().out)
        assert said is not None
        assert float(said[1]) < 1e-5

    @needs_onnx
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("front_end", FrontEnd)
    def test_onnx_has_the_front_end(self, tmp_path: Path, front_end: FrontEnd) -> None:
        import onnxruntime

        settings = residual_patches([8, 16], front_end=front_end)
        card = dataclasses.replace(
            detector_card(), model="residual_patches", model_settings=plain(settings)
        )
        file = tmp_path / "detector.safetensors"
        save_model(file, settings.build(SIZE, pretrained=False), card.to_file())
        assert main(["export", str(file), "--format", "onnx"]) == 0
        session = onnxruntime.InferenceSession(
            tmp_path / "export" / "detector.onnx", providers=["CPUExecutionProvider"]
        )
        (got,) = session.run(["probability_real"], {"images": images(3)})
        assert got == original(file, images(3))

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("count", [1, 5])
    def test_torch_export_scores_grey_levels_in_batches_of_any_size(
        self, detector_file: Path, count: int
    ) -> None:
        assert main(["export", str(detector_file), "--format", "torch-export"]) == 0
        path = detector_file.parent / "export" / "detector.pt2"
        got = torch.export.load(path).module()(torch.from_numpy(images(count)))
        assert got.detach().numpy() == original(detector_file, images(count))

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        "format_", [pytest.param("onnx", marks=needs_onnx), "torch-export", "safetensors"]
    )
    def test_the_exported_graph_takes_the_full_square_of_the_view_crop(
        self, detector_file: Path, format_: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        network = load_model(detector_file, DETECTORS, UPGRADES, pretrained=False).model
        card = detector_card(view="crop", crop_size=SIZE + 3, guard=None)
        save_model(detector_file, network, card.to_file())
        assert main(["export", str(detector_file), "--format", format_]) == 0
        said = re.search(r"by (\S+) at most", capsys.readouterr().out)
        assert said is not None
        assert float(said[1]) < 1e-5
        if format_ != "torch-export":
            return
        square = np.random.default_rng(7).integers(0, 256, (3, 3, SIZE + 3, SIZE + 3), np.uint8)
        program = torch.export.load(detector_file.parent / "export" / "detector.pt2").module()
        crops = [
            torch.from_numpy(square[:, :, top : top + SIZE, left : left + SIZE]).float()
            for top in (0, 3)
            for left in (0, 3)
        ]
        with torch.no_grad():
            scores = torch.stack([network(crop) for crop in crops]).mean(dim=0)
        got = program(torch.from_numpy(square)).detach().numpy()
        assert got == pytest.approx(expit(scores.numpy() / 2.0), abs=1e-6)

    @pytest.mark.filterwarnings("ignore")
    def test_the_exported_graph_has_the_offset_of_the_calibration(
        self, detector_file: Path
    ) -> None:
        recalibrated(detector_file, offset=0.25, temperature=0.5)
        assert main(["export", str(detector_file), "--format", "torch-export"]) == 0
        got = _exported(detector_file)
        assert got == original(detector_file, images(3))

    @pytest.mark.filterwarnings("ignore")
    def test_the_graph_of_an_uncalibrated_detector_gives_scores(self, detector_file: Path) -> None:
        recalibrated(detector_file, offset=None, temperature=None)
        assert main(["export", str(detector_file), "--format", "torch-export"]) == 0
        squares = images(3).transpose(0, 2, 3, 1)
        scores = Predictor.load(detector_file).scorer.score_rows(squares)
        assert _exported(detector_file) == pytest.approx(scores, abs=1e-6)
        text = (detector_file.parent / "export" / "README.md").read_text()
        assert "`scores`" in text
        assert "Real from -99 on" in text

    def test_safetensors_is_the_detector_again(self, detector_file: Path, tmp_path: Path) -> None:
        folder = tmp_path / "elsewhere" / "deep"
        given = ["export", str(detector_file), "--format", "safetensors", "-o", str(folder)]
        assert main(given) == 0
        again = Predictor.load(folder / "detector.safetensors")
        assert again.card == Predictor.load(detector_file).card
        assert again.sha256 == Predictor.load(detector_file).sha256

    def test_a_missing_package_is_said_with_what_to_install(
        self,
        detector_file: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert main(["export", str(detector_file), "--format", "onnx"]) == 1
        assert "needs onnx, onnxscript, onnxruntime: pip install" in capsys.readouterr().err


class TestModelCard:
    def test_card_says_sources_thresholds_and_limits(self, detector_file: Path) -> None:
        assert main(["export", str(detector_file), "--format", "safetensors"]) == 0
        text = (detector_file.parent / "export" / "README.md").read_text()
        for said in ("images of real (real) and seen (generated)", "lanczos", "## Limits", "uint8"):
            assert said in text
        assert "Real from 3.17997e-22 on" in text  # expit(-99 / 2)

    def test_card_says_how_images_were_matched(self, detector_file: Path) -> None:
        card = detector_card(match="jpeg").to_file()
        save_model(detector_file, NETWORK.build(SIZE, pretrained=False), card)
        assert main(["export", str(detector_file), "--format", "safetensors"]) == 0
        text = (detector_file.parent / "export" / "README.md").read_text()
        assert "then saved as JPEG of quality 75, 4:2:0, and read again. Other" in text
        assert (
            Predictor.load(
                detector_file.parent / "export" / "detector.safetensors"
            ).card.input.match
            == "jpeg"
        )

    def test_card_has_the_results_of_the_run(self, detector_file: Path) -> None:
        at = {
            key: value
            for name in ("acc", "tpr", "tnr")
            for key, value in ((name, 0.5), (f"{name}_interval", [0.25, 0.75]))
        }
        pair = {
            "real": "real", "generator": "unseen", "seen": False, "n_real": 3, "n_generated": 4,
            "at_0.5": at,
        }  # fmt: skip
        result = {"thresholds": {"0.5": 0.0}, "pairs": [pair]}
        (detector_file.parent / "result.json").write_text(json.dumps(result))
        assert main(["export", str(detector_file), "--format", "safetensors"]) == 0
        text = (detector_file.parent / "export" / "README.md").read_text()
        cells = " | ".join(["50.0 [25.0, 75.0]"] * 3)
        assert f"| real + unseen (unseen) | 3+4 | 0.5 | {cells} |" in text
