"""Ensembles of trained detectors: their scores, their file, and a run of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZE, detector_card, write_detector
from torch import Tensor

from forensics import cli
from forensics.detectors import Detector
from forensics.detectors.ensemble import EnsembleSettings, Rule
from forensics.detectors.trained import load_detector
from forensics.errors import UserError
from forensics.model_files import save_model

TRAIN = Path(__file__).parents[1] / "train.py"

MEANS, STDS = (0.5, -1.0, 0.25), (2.0, 0.5, 0.125)
"""Of the three members' scores."""


def write_member(path: Path, number: int, **card: Any) -> str:  # noqa: ANN401
    """Write the file of an untrained detector."""
    given = {"real_mean": MEANS[number], "real_std": STDS[number], "seed": number}
    return str(write_detector(path, number, **given | card))


@pytest.fixture
def members(tmp_path: Path) -> list[str]:
    return [write_member(tmp_path / f"{number}.safetensors", number) for number in range(3)]


def build(members: list[str], rule: Rule = Rule.mean) -> Detector:
    return EnsembleSettings(members=members, rule=rule).build(SIZE, pretrained=False).eval()


def noise(count: int) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 255


class TestScores:
    @pytest.mark.parametrize("rule", Rule)
    def test_are_mean_or_least_of_the_standardised_ones(
        self, members: list[str], rule: Rule
    ) -> None:
        images = noise(5)
        standardised = [
            [(score - mean) / std for score in load_detector(Path(member)).detector(images)]
            for member, mean, std in zip(members, MEANS, STDS, strict=True)
        ]
        combine = min if rule is Rule.largest else lambda scores: sum(scores) / 3
        expected = [combine(scores) for scores in zip(*standardised, strict=True)]
        torch.testing.assert_close(build(members, rule)(images), torch.stack(expected))

    @pytest.mark.parametrize("rule", Rule)
    def test_do_not_depend_on_the_order_of_the_members(
        self, members: list[str], rule: Rule
    ) -> None:
        one, other = build(members, rule), build([members[i] for i in (2, 0, 1)], rule)
        assert torch.equal(one(noise(5)), other(noise(5)))
        assert one.file_settings() == other.file_settings()

    def test_members_stay_as_they_are_in_training(self, members: list[str]) -> None:
        detector = build(members)
        before = {key: value.clone() for key, value in detector.state_dict().items()}
        scores = detector.train()(noise(5))
        assert torch.equal(detector.eval()(noise(5)), scores)
        assert all(torch.equal(value, before[k]) for k, value in detector.state_dict().items())
        assert detector.optimizer() is None


class TestRefusals:
    def test_single_member(self, members: list[str]) -> None:
        with pytest.raises(UserError) as raised:
            EnsembleSettings(members=members[:1], rule=Rule.mean)
        assert raised.value.key == "model.members"

    def test_same_member_twice(self, members: list[str]) -> None:
        with pytest.raises(UserError, match="twice") as raised:
            build([members[0], members[0]])
        assert raised.value.key == "model.members"

    @pytest.mark.parametrize("std", [None, 0.0])
    def test_member_without_spread(
        self, members: list[str], tmp_path: Path, std: float | None
    ) -> None:
        with pytest.raises(UserError, match="train it again") as raised:
            build([members[0], write_member(tmp_path / "other.safetensors", 1, real_std=std)])
        assert raised.value.key == "model.members"

    def test_member_of_another_image_size(self, members: list[str], tmp_path: Path) -> None:
        other = write_member(tmp_path / "other.safetensors", 1, image_size=32, guard=None)
        with pytest.raises(UserError, match="32") as raised:
            build([members[0], other])
        assert raised.value.key == "dataset.image_size"

    def test_member_that_is_no_detector(self, members: list[str], tmp_path: Path) -> None:
        with pytest.raises(UserError) as raised:
            build([members[0], str(tmp_path / "missing")])
        assert raised.value.key == str(tmp_path / "missing")

    def test_file_with_a_member_of_a_missing_plug_in(self, members: list[str]) -> None:
        cards = build(members).file_settings()["members"]
        cards[1]["network"] |= {"name": "unheard_of", "plugin": "some-package"}
        with pytest.raises(UserError, match="some-package"):
            EnsembleSettings(members=cards, rule=Rule.mean).build(SIZE, pretrained=False)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
class TestRun:
    def run(self, run_program: Callable[..., int], arguments: list[str], *more: str) -> int:
        given = [one for one in arguments if not one.startswith("model.")]
        return run_program(TRAIN, *given, "model=ensemble", *more)

    def test_leaves_a_file_that_needs_none_of_its_members(
        self,
        run_program: Callable[..., int],
        arguments: list[str],
        members: list[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        named = f"model.members=[{','.join(members)}]"
        assert self.run(run_program, arguments, named, "name=x") == 0
        result = json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())
        assert result["epoch"] == 1  # further ones change nothing
        assert result["settings"]["model"]["members"] == members
        assert sorted(one["seed"] for one in result["made_from"]) == [0, 1, 2]
        expected = build(members)(noise(3))
        for member in members:
            Path(member).unlink()
        detector, card, _ = load_detector(tmp_path / "outputs" / "x")
        assert torch.equal(detector(noise(3)), expected)
        assert len(card.model_settings["members"]) == 3
        capsys.readouterr()
        faces = str(tmp_path / "faces" / "seen")
        assert cli.main(["predict", "outputs/x", faces, "-o", "scores.csv"]) == 0
        assert cli.main(["export", "outputs/x", "--format", "safetensors"]) == 0

    def test_file_of_format_3_gets_what_its_members_cards_lack(
        self, members: list[str], tmp_path: Path
    ) -> None:
        built = build(members)
        card = detector_card().to_file()
        card["network"] |= {
            "name": "ensemble", "settings": built.file_settings() | {"rule": "mean"}
        }  # fmt: skip
        for one in (card, *card["network"]["settings"]["members"]):
            del one["calibration"]["largest_changes"]
        path = tmp_path / "old.safetensors"
        save_model(path, built, card | {"format": 3})
        detector, read, _ = load_detector(path)
        assert read.calibration.largest_changes is None
        assert torch.equal(detector(noise(3)), built(noise(3)))

    def test_sources_of_the_members_are_seen(
        self,
        run_program: Callable[..., int],
        arguments: list[str],
        members: list[str],
        tmp_path: Path,
    ) -> None:
        other = write_member(tmp_path / "other.safetensors", 1, trained_on=["unseen"])
        named = f"model.members=[{members[0]},{other}]"
        assert self.run(run_program, arguments, named, "name=x") == 0
        result = json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())
        assert all(pair["seen"] for pair in result["pairs"])
        card = load_detector(tmp_path / "outputs" / "x").card
        assert card.provenance.trained_on == ["seen", "unseen"]

    def test_members_prepared_in_another_way_are_refused(
        self,
        run_program: Callable[..., int],
        arguments: list[str],
        members: list[str],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        other = write_member(tmp_path / "other.safetensors", 1, match="jpeg")
        named = f"model.members=[{members[0]},{other}]"
        assert self.run(run_program, arguments, named, "name=x") == 1
        assert "dataset.match" in capfd.readouterr().err
        assert not (tmp_path / "outputs" / "x" / "result.json").exists()
