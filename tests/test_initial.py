"""Training that starts from a trained detector's weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZE, dcgan_discriminator, detector_card

from forensics.detectors import Detector
from forensics.detectors.colour_statistics import ColourStatisticsSettings
from forensics.detectors.trained import load_detector
from forensics.errors import UserError
from forensics.training.initial import check_preparation, start_from

TRAIN = Path(__file__).parents[1] / "train.py"


def fresh(seed: int = 1, **changes: Any) -> tuple[Detector, Any]:  # noqa: ANN401
    settings = dcgan_discriminator(**{"channels": [4, 8]} | changes)
    torch.manual_seed(seed)
    return settings.build(SIZE, pretrained=False), settings


class TestStart:
    def test_weights_are_the_trained_ones_whatever_the_optimizer(self, detector_file: Path) -> None:
        detector, settings = fresh(learning_rate=0.5, schedule="cosine", weight_decay=0.1)
        start_from(detector, str(detector_file), "dcgan_discriminator", settings)
        trained = load_detector(detector_file)
        state = trained.detector.state_dict()
        assert all(torch.equal(value, state[k]) for k, value in detector.state_dict().items())
        assert detector.made_from == [trained.card]
        assert detector.optimization is settings

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"channels": [4, 4]}, "model.channels"),
            ({"leaky_relu_slope": 0.1}, "model.leaky_relu_slope"),
            ({"front_end": "npr"}, "model.front_end"),
        ],
    )
    def test_another_network_is_refused_by_its_setting(
        self, detector_file: Path, changes: dict[str, Any], key: str
    ) -> None:
        detector, settings = fresh(**changes)
        with pytest.raises(UserError) as raised:
            start_from(detector, str(detector_file), "dcgan_discriminator", settings)
        assert raised.value.key == key

    def test_another_model_is_refused(self, detector_file: Path) -> None:
        detector, settings = fresh()
        with pytest.raises(UserError, match="dcgan_discriminator") as raised:
            start_from(detector, str(detector_file), "residual_patches", settings)
        assert raised.value.key == "model"

    def test_model_without_gradient_is_refused(self, detector_file: Path) -> None:
        settings = ColourStatisticsSettings(one_class=False)
        detector = settings.build(SIZE, pretrained=False)
        with pytest.raises(UserError) as raised:
            start_from(detector, str(detector_file), "colour_statistics", settings)
        assert raised.value.key == "init"

    @pytest.mark.parametrize(
        ("name", "value"), [("image_size", 32), ("resize_filter", "box"), ("match", "jpeg")]
    )
    def test_images_prepared_in_another_way_are_refused(
        self, faces: Callable[..., Any], name: str, value: object
    ) -> None:
        check_preparation([detector_card()], faces())
        with pytest.raises(UserError) as raised:
            check_preparation([detector_card(**{name: value, "guard": None})], faces())
        assert raised.value.key == f"dataset.{name}"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
class TestRun:
    def test_adapts_a_detector_to_few_images_of_another_generator(
        self, run_program: Callable[..., int], arguments: list[str], tmp_path: Path
    ) -> None:
        assert run_program(TRAIN, *arguments, "name=a", "model.learning_rate=0.01") == 0
        given = [one for one in arguments if not one.startswith("dataset.train_")]
        few = ("dataset.train_on=[unseen]", "dataset.train_count=6", "batch_size=4")
        slow = ("model.learning_rate=1e-12", "max_epochs=1")
        more = ("name=b", "init=outputs/a", "dataset.test_count=4")
        assert run_program(TRAIN, *given, *few, *slow, *more) == 0
        first, second = (load_detector(tmp_path / "outputs" / name) for name in "ab")
        for (name, one), other in zip(
            first.detector.named_parameters(), second.detector.parameters(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6, msg=name)
        result = json.loads((tmp_path / "outputs" / "b" / "result.json").read_text())
        assert result["settings"]["init"] == "outputs/a"
        (origin,) = result["made_from"]
        assert origin["trained_on"] == ["seen"]
        assert result["images"]["train"]["unseen"] == 5
        assert result["images"]["train"]["seen"] == 0
        # Trained on both by now.
        assert all(pair["seen"] for pair in result["pairs"])
        assert second.card.provenance.trained_on == ["unseen", "seen"]

    def test_missing_detector_is_refused_and_leaves_nothing(
        self,
        run_program: Callable[..., int],
        arguments: list[str],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        assert run_program(TRAIN, *arguments, "name=b", "init=outputs/missing") == 1
        assert "outputs/missing" in capfd.readouterr().err
