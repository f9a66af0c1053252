"""Files that keep a trained network, and their metadata: they come back, or are refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ADAM, SIZE, dcgan_discriminator, detector_card
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.special import expit
from torch import Tensor, nn

from forensics.detectors import DETECTORS, Detector
from forensics.detectors.card import UPGRADES, DetectorCard
from forensics.errors import UserError
from forensics.model_files import FORMAT, checksum, load_model, save_model

TINY = dcgan_discriminator([2, 3])


def _images(count: int, size: int) -> Tensor:
    """Noise in [0, 255]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255


CARD: dict[str, Any] = {
    "network": {
        "name": "dcgan_discriminator",
        "settings": {"channels": [2, 3], "leaky_relu_slope": 0.2} | ADAM,
        "image_size": 8,
    },
    "thresholds": {"half": 0.0, "validation": -1.25e-7},
    "note": 'naïve, "quoted"\n',
}


def _load(path: Path) -> nn.Module:
    return load_model(path, DETECTORS, UPGRADES, pretrained=False).model


FORMAT_1 = Path(__file__).parent / "fixtures" / "format_1" / "run" / "detector.safetensors"


def _of_format_1(path: Path, content: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a file as format 1 had it."""
    text = json.dumps(content, sort_keys=True)
    save_file(tensors, path, {"forensics": text, "sha256": checksum(text, tensors)})


class TestCard:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"guard": None},
            {"offset": None, "temperature": None},
            {"offset": -1.5, "toy": True, "git_commit": "abc", "match": "jpeg"},
            {"trained_on": [], "version": None},
            {"largest_changes": {"jpeg": 0.5, "rescale": 0.0}},
        ],
    )
    def test_card_comes_back_from_its_file(self, changes: dict[str, Any]) -> None:
        card = detector_card(**changes)
        content = json.loads(json.dumps(card.to_file()))
        assert DetectorCard.from_file(content) == card
        assert DetectorCard.from_file({"format": FORMAT} | content) == card
        assert list(content) == ["network", "input", "calibration", "guard", "provenance"]
        assert content["network"]["image_size"] == content["input"]["image_size"] == SIZE

    @pytest.mark.parametrize(
        "section", ["network", "input", "calibration", "guard", "provenance", None]
    )
    def test_unknown_field_is_refused_by_its_name(self, section: str | None) -> None:
        content = detector_card().to_file()
        (content if section is None else content[section])["colour_space"] = "ntsc"
        with pytest.raises((TypeError, ValueError), match="colour_space"):
            DetectorCard.from_file(content)

    def test_missing_field_is_refused_by_its_name(self) -> None:
        whole = detector_card().to_file()
        for section, fields in whole.items():
            rest = {name: value for name, value in whole.items() if name != section}
            with pytest.raises(KeyError, match=section):
                DetectorCard.from_file(rest)
            for field in fields:
                less = {name: value for name, value in fields.items() if name != field}
                with pytest.raises((KeyError, TypeError), match=field):
                    DetectorCard.from_file(whole | {section: less})

    def test_image_sizes_that_differ_are_refused(self) -> None:
        content = detector_card(guard=None).to_file()
        content["input"]["image_size"] = 2 * SIZE
        with pytest.raises(ValueError, match="image size"):
            DetectorCard.from_file(content)

    @pytest.mark.parametrize("name", ["mean", "std"])
    def test_profile_of_images_of_another_size_is_refused(self, name: str) -> None:
        content = detector_card().to_file()
        content["guard"]["spectra"]["real"][name].append(1.0)
        with pytest.raises(ValueError, match=f"{name} of the spectra of real"):
            DetectorCard.from_file(content)

    @pytest.mark.parametrize("score", [-2000.0, -99.0, -0.5, 0.0, 0.25, 3.0, 2000.0])
    def test_probability_is_scipys_of_the_calibrated_score(self, score: float) -> None:
        calibration = detector_card(offset=0.25, temperature=0.5).calibration
        expected = float(expit((score - 0.25) / 0.5))
        assert calibration.probability_real(score) == pytest.approx(expected, rel=1e-12)

    def test_uncalibrated_score_has_no_probability(self) -> None:
        calibration = detector_card(offset=None, temperature=None).calibration
        assert calibration.probability_real(1.0) is None


class TestFormats:
    def read_1(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        with safe_open(FORMAT_1, framework="pt") as file:
            content = json.loads(file.metadata()["forensics"])
            return content, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def test_each_field_of_format_1_is_found_in_its_section(self) -> None:
        old, tensors = self.read_1()
        detector, content, _ = load_model(FORMAT_1, DETECTORS, UPGRADES, pretrained=False)
        card = DetectorCard.from_file(content)
        assert (old.pop("format"), content["format"]) == (1, FORMAT)
        assert card.model == old.pop("model")
        assert card.model_settings == old.pop("model_settings") | ADAM
        assert card.guard is not None
        assert card.guard.spectra == old.pop("spectra")
        assert card.guard.limit == old.pop("spectrum_limit")
        for section in (card.input, card.calibration, card.provenance):
            for name, value in dataclasses.asdict(section).items():
                added = ("offset", "seed", "view", "crop_size", "real_mean", "real_std",
                         "largest_changes")  # fmt: skip
                assert name in added or old.pop(name) == value
        assert card.calibration.offset == 0
        assert card.calibration.real_mean is card.calibration.real_std is None
        assert card.calibration.largest_changes is None
        assert card.provenance.seed is None
        assert card.plugin is None
        assert not old
        state = detector.state_dict()
        assert len(state) == len(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(state[name.replace("features.", "convolutions.")], tensor)

    def test_file_of_format_1_can_be_written_anew(self, tmp_path: Path) -> None:
        detector, content, _ = load_model(FORMAT_1, DETECTORS, UPGRADES, pretrained=False)
        card, path = DetectorCard.from_file(content), tmp_path / "detector.safetensors"
        save_model(path, detector, card.to_file())
        again, content, _ = load_model(path, DETECTORS, {}, pretrained=False)
        assert DetectorCard.from_file(content) == card
        images = _images(4, card.input.image_size)
        assert torch.equal(again(images), detector(images))

    @pytest.mark.parametrize(
        "missing",
        ["model", "model_settings", "image_size", "temperature", "spectra", "precision", "toy"],
    )
    def test_file_of_format_1_that_lacks_something_is_refused(
        self, tmp_path: Path, missing: str
    ) -> None:
        content, tensors = self.read_1()
        del content[missing]
        path = tmp_path / "detector.safetensors"
        _of_format_1(path, content, tensors)
        with pytest.raises(UserError, match=missing) as raised:
            load_model(path, DETECTORS, UPGRADES, pretrained=False)
        assert raised.value.key == str(path)

    def test_file_of_format_1_is_refused_without_a_way_to_upgrade_it(self) -> None:
        with pytest.raises(UserError, match="format 1") as raised:
            load_model(FORMAT_1, DETECTORS, {}, pretrained=False)
        assert raised.value.key == str(FORMAT_1)

    @pytest.mark.parametrize("format_", [0, FORMAT + 1, 99, "2", None, [2], {"a": 1}])
    def test_unknown_format_is_refused(self, tmp_path: Path, format_: object) -> None:
        path = tmp_path / "detector.safetensors"
        network = TINY.build(8, pretrained=False)
        save_model(path, network, CARD | {"format": format_})
        with pytest.raises(UserError) as raised:
            load_model(path, DETECTORS, UPGRADES, pretrained=False)
        assert raised.value.key == str(path)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Detector]:
    """A file and the detector in it, whose BatchNorm has seen some images."""
    torch.manual_seed(0)
    detector = TINY.build(8, pretrained=False)
    detector(_images(8, 8))
    path = tmp_path / "detector.safetensors"
    save_model(path, detector.eval(), CARD)
    return path, detector


class _Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


class TestFiles:
    def test_scores_come_back_bit_for_bit(self, saved: tuple[Path, Detector]) -> None:
        path, detector = saved
        loaded = _load(path)
        assert not loaded.training
        images = _images(16, 8)
        assert torch.equal(loaded(images), detector(images))

    def test_card_comes_back(self, saved: tuple[Path, Detector]) -> None:
        content = load_model(saved[0], DETECTORS, UPGRADES, pretrained=False).card
        assert content == {"format": FORMAT} | CARD

    def test_channels_last_weights_come_back(self, tmp_path: Path) -> None:
        detector = TINY.build(8, pretrained=False).eval()
        images, path = _images(4, 8), tmp_path / "detector.safetensors"
        expected = detector(images)
        save_model(path, detector.to(memory_format=torch.channels_last), CARD)
        assert torch.equal(_load(path)(images), expected)

    def test_saving_leaves_nothing_else_and_replaces(self, saved: tuple[Path, Detector]) -> None:
        path, detector = saved
        save_model(path, detector, CARD | {"note": "second"})
        assert load_model(path, DETECTORS, UPGRADES, pretrained=False).card["note"] == "second"
        assert list(path.parent.iterdir()) == [path]

    def test_a_flipped_bit_anywhere_is_refused(self, saved: tuple[Path, Detector]) -> None:
        path, _ = saved
        content = path.read_bytes()
        for position in [*range(0, len(content), 3), len(content) - 1]:
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            path.write_bytes(damaged)
            with pytest.raises(UserError) as raised:
                _load(path)
            assert raised.value.key == str(path)

    def test_a_file_cut_anywhere_is_refused(self, saved: tuple[Path, Detector]) -> None:
        path, _ = saved
        content = path.read_bytes()
        for length in [*range(0, len(content), 37), len(content) - 1]:
            path.write_bytes(content[:length])
            with pytest.raises(UserError) as raised:
                _load(path)
            assert raised.value.key == str(path)
        path.write_bytes(content + b"\0")
        with pytest.raises(UserError) as raised:
            _load(path)
        assert raised.value.key == str(path)

    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
    def test_a_foreign_safetensors_file_is_refused(
        self, tmp_path: Path, metadata: dict[str, str] | None
    ) -> None:
        path = tmp_path / "foreign.safetensors"
        save_file({"weight": torch.zeros(2, dtype=torch.bfloat16)}, path, metadata)
        with pytest.raises(UserError) as raised:
            _load(path)
        assert raised.value.key == str(path)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"name": "resnet"}, "resnet"),
            ({"settings": CARD["network"]["settings"] | {"depth": 1}}, "depth"),
            ({"settings": {"channels": [2, 3]} | ADAM}, "leaky_relu_slope"),
            ({"settings": {"channels": [2, 3], "leaky_relu_slope": 0.2}}, "learning_rate"),
            ({"settings": CARD["network"]["settings"] | {"channels": [2, 4]}}, "size mismatch"),
            ({"image_size": 16}, "size mismatch"),
        ],
    )
    def test_network_that_this_version_does_not_know_is_refused(
        self, saved: tuple[Path, Detector], change: dict[str, Any], named: str
    ) -> None:
        path, detector = saved
        save_model(path, detector, CARD | {"network": CARD["network"] | change})
        with pytest.raises(UserError, match=named) as raised:
            _load(path)
        assert raised.value.key == str(path)

    def test_image_size_that_the_network_cannot_have_is_refused(
        self, saved: tuple[Path, Detector]
    ) -> None:
        path, detector = saved
        save_model(path, detector, CARD | {"network": CARD["network"] | {"image_size": 9}})
        with pytest.raises(UserError) as raised:
            _load(path)
        assert raised.value.key == str(path)
        assert "dataset.image_size" in str(raised.value)

    @pytest.mark.parametrize("missing", ["network", "name", "settings", "image_size"])
    def test_a_card_without_what_it_must_hold_is_refused(
        self, saved: tuple[Path, Detector], missing: str
    ) -> None:
        path, detector = saved
        network = {k: v for k, v in CARD["network"].items() if k != missing}
        save_model(path, detector, {} if missing == "network" else CARD | {"network": network})
        with pytest.raises(UserError, match=missing) as raised:
            _load(path)
        assert raised.value.key == str(path)

    def test_a_card_with_text_that_no_table_can_have_is_refused(
        self, saved: tuple[Path, Detector]
    ) -> None:
        path, detector = saved
        save_model(path, detector, CARD | {"version": "\ud800"})
        with pytest.raises(UserError, match="surrogates") as raised:
            _load(path)
        assert raised.value.key == str(path)

    @pytest.mark.parametrize("torch_format", [False, True])
    def test_a_pickle_is_refused_and_not_run(self, tmp_path: Path, torch_format: bool) -> None:
        path, touched = tmp_path / "detector.safetensors", tmp_path / "touched"
        trap = {"state_dict": _Trap(touched)}
        if torch_format:
            torch.save(trap, path)
        else:
            path.write_bytes(pickle.dumps(trap))
        with pytest.raises(UserError) as raised:
            _load(path)
        assert raised.value.key == str(path)
        assert not touched.exists()

    @pytest.mark.parametrize("kind", ["missing", "folder", "text"])
    def test_what_is_no_such_file_is_refused(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "detector.safetensors"
        if kind == "folder":
            path.mkdir()
        elif kind == "text":
            path.write_text(json.dumps(CARD))
        with pytest.raises(UserError) as raised:
            _load(path)
        assert raised.value.key == str(path)
