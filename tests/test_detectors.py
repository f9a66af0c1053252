"""The paper's detector, and the files that hold a trained one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from forensics.detectors import DETECTORS
from forensics.detectors.dcgan_discriminator import DcganDiscriminator
from forensics.errors import UserError
from forensics.model_files import load_model, save_model

PAPER = DcganDiscriminator([64, 128, 256, 512], 0.2)
SMALL = DcganDiscriminator([8, 16, 32], 0.2)
TINY = DcganDiscriminator([2, 3], 0.2)


def _images(count: int, size: int) -> Tensor:
    """Noise in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def paper() -> nn.Module:
    torch.manual_seed(0)
    return PAPER.build(128)


class TestPaper:
    def test_shapes_after_every_convolution(self, paper: nn.Module) -> None:
        shapes = []
        for module in paper.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
        logits = paper(_images(2, 128))
        assert shapes == [(2, 64, 64, 64), (2, 128, 32, 32), (2, 256, 16, 16), (2, 512, 8, 8)]
        assert logits.shape == (2,)

    def test_parameter_count(self, paper: nn.Module) -> None:
        # Convolution: 16 x inputs x outputs, BatchNorm: 2 x channels, linear unit: inputs + 1.
        # 16 x 3 x 64 + 64, the one convolution with a bias   3,136
        # 16 x  64 x 128 + 2 x 128                          131,328
        # 16 x 128 x 256 + 2 x 256                          524,800
        # 16 x 256 x 512 + 2 x 512                        2,098,176
        # 512 x 8 x 8 + 1                                    32,769
        assert sum(p.numel() for p in paper.parameters()) == 2_790_209

    def test_layers_are_the_papers(self, paper: nn.Module) -> None:
        layers = [m for m in paper.modules() if not list(m.children())]
        block = [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]
        first = [nn.Conv2d, nn.LeakyReLU]
        assert [type(layer) for layer in layers] == [*first, *block, *block, *block, nn.Linear]
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                assert (layer.kernel_size, layer.stride) == ((4, 4), (2, 2))
                assert layer.padding == (1, 1)
            if isinstance(layer, nn.LeakyReLU):
                assert layer.negative_slope == 0.2

    def test_scores_are_those_of_the_network_written_out(self) -> None:
        torch.manual_seed(0)
        detector = TINY.build(8)
        by_hand = nn.Sequential(
            nn.Conv2d(3, 2, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2, 3, 4, 2, 1, bias=False),
            nn.BatchNorm2d(3),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(12, 1),
        )
        state = zip(by_hand.state_dict(), detector.state_dict().values(), strict=True)
        by_hand.load_state_dict(dict(state))
        images = _images(5, 8)
        for training in (True, False):
            expected = by_hand.train(training)(images)[:, 0]
            torch.testing.assert_close(detector.train(training)(images), expected)

    def test_weights_start_as_dcgans(self, paper: nn.Module) -> None:
        for module in paper.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                mean = 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0
                weights = module.weight.detach().flatten()
                # All of them: standard deviation and mean have known laws.
                n, std = len(weights), float(weights.std())
                low, high = stats.chi2.interval(1 - 1e-6, n - 1)
                assert low <= (n - 1) * (std / 0.02) ** 2 <= high
                assert abs(float(weights.mean()) - mean) < 5 * 0.02 / n**0.5
                assert stats.kstest(weights[:5000].numpy(), "norm", (mean, 0.02)).pvalue > 1e-4
                assert module.bias is None or not module.bias.any()

    def test_the_seed_decides_the_weights(self) -> None:
        def weights(seed: int) -> Tensor:
            torch.manual_seed(seed)
            return nn.utils.parameters_to_vector(SMALL.build(16).parameters())

        assert torch.equal(weights(0), weights(0))
        assert not torch.equal(weights(0), weights(1))


class TestTraining:
    def test_gradient_reaches_every_parameter(self) -> None:
        torch.manual_seed(0)
        detector = PAPER.build(32)
        loss = binary_cross_entropy_with_logits(detector(_images(4, 32)), torch.ones(4))
        torch.autograd.backward(loss)
        for name, parameter in detector.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_learns_sixteen_random_images_by_heart(self) -> None:
        torch.manual_seed(0)
        detector = SMALL.build(32)
        images, labels = _images(16, 32), torch.tensor([0.0, 1.0] * 8)
        optimizer = torch.optim.Adam(detector.parameters(), lr=2e-3, betas=(0.5, 0.999))
        for _ in range(40):
            loss = binary_cross_entropy_with_logits(detector(images), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        assert float(loss.detach()) < 0.01
        assert torch.equal(detector(images) > 0, labels == 1)

    def test_in_evaluation_other_images_of_the_batch_do_not_matter(self) -> None:
        detector = SMALL.build(16)
        detector(_images(8, 16))
        images = _images(4, 16)
        alone = torch.cat([detector.eval()(image[None]) for image in images])
        torch.testing.assert_close(detector(images), alone)

    def test_logits_are_float32_under_bfloat16_autocast(self) -> None:
        torch.manual_seed(0)
        detector, images = SMALL.build(32).eval(), _images(64, 32)
        exact = detector(images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = detector(images)
        assert logits.dtype == torch.float32
        assert not torch.equal(logits, exact)  # the convolutions did run in bfloat16
        assert len(logits.unique()) == len(logits) > len(logits.bfloat16().unique())


class TestSettings:
    @pytest.mark.parametrize("channels", [[], [0], [64, -1]])
    def test_channels_out_of_range_are_refused(self, channels: list[int]) -> None:
        with pytest.raises(UserError, match=r"model\.channels must be a list of numbers >= 1"):
            DcganDiscriminator(channels, 0.2)

    @pytest.mark.parametrize("slope", [-0.1, 1.0, float("nan")])
    def test_slopes_out_of_range_are_refused(self, slope: float) -> None:
        with pytest.raises(UserError, match=r"model\.leaky_relu_slope must lie in \[0, 1\)"):
            DcganDiscriminator([64], slope)

    @pytest.mark.parametrize("image_size", [1, 8, 100, 127])
    def test_sizes_that_cannot_be_halved_four_times_are_refused(self, image_size: int) -> None:
        with pytest.raises(UserError, match=r"dataset\.image_size .* multiple of 16 .*model\."):
            PAPER.build(image_size)


CARD: dict[str, Any] = {
    "model": "dcgan_discriminator",
    "model_settings": {"channels": [2, 3], "leaky_relu_slope": 0.2},
    "image_size": 8,
    "thresholds": {"half": 0.0, "validation": -1.25e-7},
    "note": 'naïve, "quoted"\n',
}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A file and the detector in it, whose BatchNorm has seen some images."""
    torch.manual_seed(0)
    detector = TINY.build(8)
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
    def test_scores_come_back_bit_for_bit(self, saved: tuple[Path, nn.Module]) -> None:
        path, detector = saved
        loaded = load_model(path, DETECTORS).model
        assert not loaded.training
        images = _images(16, 8)
        assert torch.equal(loaded(images), detector(images))

    def test_card_comes_back(self, saved: tuple[Path, nn.Module]) -> None:
        assert load_model(saved[0], DETECTORS).card == {"format": 1} | CARD

    def test_channels_last_weights_come_back(self, tmp_path: Path) -> None:
        detector = TINY.build(8).eval()
        images, path = _images(4, 8), tmp_path / "detector.safetensors"
        expected = detector(images)
        save_model(path, detector.to(memory_format=torch.channels_last), CARD)
        assert torch.equal(load_model(path, DETECTORS).model(images), expected)

    def test_saving_leaves_nothing_else_and_replaces(self, saved: tuple[Path, nn.Module]) -> None:
        path, detector = saved
        save_model(path, detector, CARD | {"note": "second"})
        assert load_model(path, DETECTORS).card["note"] == "second"
        assert list(path.parent.iterdir()) == [path]

    def test_a_flipped_bit_anywhere_is_refused(self, saved: tuple[Path, nn.Module]) -> None:
        path, _ = saved
        content = path.read_bytes()
        for position in [*range(0, len(content), 3), len(content) - 1]:
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=r"detector\.safetensors"):
                load_model(path, DETECTORS)

    def test_a_file_cut_anywhere_is_refused(self, saved: tuple[Path, nn.Module]) -> None:
        path, _ = saved
        content = path.read_bytes()
        for length in [*range(0, len(content), 37), len(content) - 1]:
            path.write_bytes(content[:length])
            with pytest.raises(UserError, match=r"detector\.safetensors is no readable"):
                load_model(path, DETECTORS)
        path.write_bytes(content + b"\0")
        with pytest.raises(UserError, match=r"detector\.safetensors is no readable"):
            load_model(path, DETECTORS)

    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
    def test_a_foreign_safetensors_file_is_refused(
        self, tmp_path: Path, metadata: dict[str, str] | None
    ) -> None:
        path = tmp_path / "foreign.safetensors"
        save_file({"weight": torch.zeros(2, dtype=torch.bfloat16)}, path, metadata)
        with pytest.raises(UserError, match=r"foreign\.safetensors .* of no network of ours"):
            load_model(path, DETECTORS)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model": "resnet"}, "holds a resnet, which is not among dcgan_discriminator"),
            (
                {"model_settings": {"channels": [2, 3], "leaky_relu_slope": 0.2, "depth": 1}},
                "does not fit this version's dcgan_discriminator .*depth",
            ),
            (
                {"model_settings": {"channels": [2, 3]}},
                "does not fit this version's dcgan_discriminator .*leaky_relu_slope",
            ),
            (
                {"model_settings": {"channels": [2, 4], "leaky_relu_slope": 0.2}},
                "does not fit this version's dcgan_discriminator .*size mismatch",
            ),
            ({"image_size": 16}, "does not fit this version's dcgan_discriminator"),
            ({"image_size": 9}, r"dataset\.image_size must be a multiple of 4"),
            ({"format": 2, "version": "9.9"}, r"has format 2, this version reads 1.* 9\.9"),
        ],
    )
    def test_what_this_version_does_not_know_is_refused(
        self, saved: tuple[Path, nn.Module], change: dict[str, Any], message: str
    ) -> None:
        path, detector = saved
        save_model(path, detector, CARD | change)
        with pytest.raises(UserError, match=message):
            load_model(path, DETECTORS)

    @pytest.mark.parametrize("missing", ["model", "model_settings", "image_size"])
    def test_a_card_without_what_it_must_hold_is_refused(
        self, saved: tuple[Path, nn.Module], missing: str
    ) -> None:
        path, detector = saved
        save_model(path, detector, {k: v for k, v in CARD.items() if k != missing})
        with pytest.raises(UserError, match=missing):
            load_model(path, DETECTORS)

    @pytest.mark.parametrize("torch_format", [False, True])
    def test_a_pickle_is_refused_and_not_run(self, tmp_path: Path, torch_format: bool) -> None:
        path, touched = tmp_path / "detector.safetensors", tmp_path / "touched"
        trap = {"state_dict": _Trap(touched)}
        if torch_format:
            torch.save(trap, path)
        else:
            path.write_bytes(pickle.dumps(trap))
        with pytest.raises(UserError, match=r"detector\.safetensors is no readable"):
            load_model(path, DETECTORS)
        assert not touched.exists()

    @pytest.mark.parametrize("kind", ["missing", "folder", "text"])
    def test_what_is_no_such_file_is_refused(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "detector.safetensors"
        if kind == "folder":
            path.mkdir()
        elif kind == "text":
            path.write_text(json.dumps(CARD))
        with pytest.raises(UserError, match=r"detector\.safetensors is no readable"):
            load_model(path, DETECTORS)
