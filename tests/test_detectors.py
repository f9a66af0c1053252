"""What every detector promises, the paper's against its description, files of trained ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ADAM, SIZE, dcgan_discriminator, detector_card, residual_patches
from scipy import stats
from scipy.special import expit
from torch import Tensor, nn

from forensics.detectors import DETECTORS, Detector, DetectorSettings
from forensics.detectors.backbone import (
    BackboneSettings,
    CnnDetectionSettings,
    NoDownSettings,
    UnivFdSettings,
    Vgg16Settings,
    XceptionSettings,
)
from forensics.detectors.base import Optimization, Schedule, Step, to_unit_range
from forensics.detectors.bayar import Bayar2016Settings, MislNetSettings
from forensics.detectors.card import UPGRADES
from forensics.detectors.co_occurrence import CoOccurrenceSettings
from forensics.detectors.colour_statistics import ColourStatisticsSettings
from forensics.detectors.dcgan_discriminator import DcganDiscriminatorSettings
from forensics.detectors.dct import DctNetworkSettings, DctRidgeSettings
from forensics.detectors.ensemble import EnsembleSettings, Rule
from forensics.detectors.ferretnet import FerretNetSettings
from forensics.detectors.forensic_transfer import ForensicTransferSettings
from forensics.detectors.freqnet import FreqNetSettings
from forensics.detectors.front_ends import Fixed, FrontEnd
from forensics.detectors.gncnn import GncnnSettings
from forensics.detectors.gram_net import GramNetSettings
from forensics.detectors.meso import Meso4Settings, MesoInception4Settings
from forensics.detectors.patches import PatchesSettings
from forensics.detectors.radial_spectrum import RadialSpectrumSettings
from forensics.detectors.shallow_net import ShallowNetV1Settings, ShallowNetV3Settings
from forensics.detectors.truncated_resnet import NprSettings, SafeSettings
from forensics.errors import UserError
from forensics.model_files import load_model, save_model
from forensics.preprocess.base import Draws
from forensics.scoring.explanation import check_explainable, grad_cam

PAPER = dcgan_discriminator([64, 128, 256, 512])
SMALL = dcgan_discriminator([8, 16, 32])
TINY = dcgan_discriminator([2, 3])


def _images(count: int, size: int) -> Tensor:
    """Noise in [0, 255]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255


class RadialLogistic(Detector):
    """A logistic model on log radial spectra, without features or feature maps."""

    mean: Tensor
    std: Tensor
    rings: Tensor

    def __init__(self, image_size: int, optimization: Optimization) -> None:
        super().__init__(optimization)
        frequency = torch.fft.fftfreq(image_size)
        radius = (torch.hypot(frequency[:, None], frequency) * image_size).round().flatten()
        rings = (radius[:, None] == torch.arange(image_size // 2 + 1)).float()
        self.register_buffer("rings", rings / rings.sum(0), persistent=False)
        self.register_buffer("mean", torch.zeros(rings.shape[1]))
        self.register_buffer("std", torch.ones(rings.shape[1]))
        self.logit = nn.Linear(rings.shape[1], 1)

    def spectra(self, images: Tensor) -> Tensor:
        power = torch.fft.fft2(images.float().mean(1)).abs().square()
        log_power: Tensor = (power.flatten(1) @ self.rings + 1).log()
        return log_power

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        spectra = torch.cat([self.spectra(images) for images, _ in batches])
        self.mean.copy_(spectra.mean(0))
        self.std.copy_(spectra.std(0))

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.logit((self.spectra(images) - self.mean) / self.std)
        return logits.squeeze(1)


@dataclasses.dataclass(kw_only=True)
class RadialLogisticSettings(Optimization):
    def build(self, image_size: int, *, pretrained: bool) -> RadialLogistic:
        return RadialLogistic(image_size, self)


class OneClass(Detector):
    """Distance of an image's mean colour and contrast from those of real images; no gradient."""

    one_class = True
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("std", torch.ones(6))

    def features(self, images: Tensor) -> Tensor:
        std, mean = torch.std_mean(images.float(), dim=(2, 3))
        return torch.cat([mean, std], 1)

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        real = torch.cat([self.features(images[labels == 1]) for images, labels in batches])
        self.mean.copy_(real.mean(0))
        self.std.copy_(real.std(0))

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        return Step(None, self(images))

    def forward(self, images: Tensor) -> Tensor:
        return -((self.features(images) - self.mean) / self.std).square().sum(1)


@dataclasses.dataclass
class OneClassSettings:
    def build(self, image_size: int, *, pretrained: bool) -> OneClass:
        return OneClass()


class Pooled(Detector):
    """One convolution and its mean; trained on images with a little drawn noise."""

    def __init__(self, width: int, optimization: Optimization) -> None:
        super().__init__(optimization)
        self.maps = nn.Sequential(nn.Conv2d(3, width, 3, stride=1, padding=1), nn.ReLU())
        self.logit = nn.Linear(width, 1)

    def features(self, images: Tensor) -> Tensor:
        maps: Tensor = self.maps(to_unit_range(images))
        return maps.float().mean(dim=(2, 3))

    def saliency_layer(self) -> nn.Module:
        return self.maps

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.logit(pooled)
        return logits.squeeze(1)

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        if self.training:
            images = images + torch.randn(images.shape, generator=draws.own)
        return super().step(images, labels, draws)


@dataclasses.dataclass(kw_only=True)
class PooledSettings(Optimization):
    width: int

    def build(self, image_size: int, *, pretrained: bool) -> Pooled:
        return Pooled(self.width, self)


FAST = ADAM | {"learning_rate": 0.01, "betas": [0.9, 0.999]}
COSINE = ADAM | {"learning_rate": 0.05, "schedule": "cosine", "warmup_epochs": 0.5}
OTHERS: dict[str, type] = {
    "dcgan_discriminator_lpd": DcganDiscriminatorSettings,
    "colour_statistics_one_class": ColourStatisticsSettings,
    "radial_logistic": RadialLogisticSettings,
    "one_class": OneClassSettings,
    "pooled_cosine": PooledSettings,
}
_RATE = ADAM | {"learning_rate": 5e-3, "betas": [0.9, 0.999]}
_TIMM = _RATE | {"name": "test_resnet", "pretrained": False, "frozen": False, "resize": False}
MODERN: dict[str, DetectorSettings] = {
    "npr": NprSettings(width=4, front_end=FrontEnd.npr, **_RATE),
    "safe": SafeSettings(width=4, front_end=FrontEnd.wavelet, **_RATE),
    "ferretnet": FerretNetSettings(width=4, dropout=0.2, front_end=FrontEnd.lpd, **_RATE),
    "freqnet": FreqNetSettings(width=8, front_end=FrontEnd.fft_highpass, **_RATE),
    "gram_net": GramNetSettings(width=8, dropout=0.5, **_RATE),
    "patches": PatchesSettings(channels=[4, 4, 8, 8], **_RATE),
    "timm": BackboneSettings(**_TIMM),
    "cnn_detection": CnnDetectionSettings(**_TIMM),
    "no_down": NoDownSettings(**_TIMM | {"name": "resnet18"}),
    "univfd": UnivFdSettings(
        **_TIMM | {"frozen": True, "pretrained": "never read", "weight_decay": 0.01}
    ),
    "xception": XceptionSettings(**_TIMM),
    "vgg16": Vgg16Settings(**_TIMM),
}
SETTINGS: dict[str, DetectorSettings] = {
    "dcgan_discriminator": dcgan_discriminator([4, 8], learning_rate=2e-3),
    "residual_patches": residual_patches([8, 16], learning_rate=0.01),
    "radial_spectrum": RadialSpectrumSettings(**ADAM | {"learning_rate": 0.1}),
    **MODERN,
    "dcgan_discriminator_lpd": dcgan_discriminator([4, 8], front_end="lpd", learning_rate=2e-3),
    "colour_statistics": ColourStatisticsSettings(one_class=False),
    "colour_statistics_one_class": ColourStatisticsSettings(one_class=True),
    "co_occurrence": CoOccurrenceSettings(
        levels=16, cross_band=True, channels=[4, 8], hidden=8, **ADAM | {"learning_rate": 0.005}
    ),
    "forensic_transfer": ForensicTransferSettings(
        channels=[4, 8, 16], front_end=FrontEnd.laplacian, **ADAM | {"learning_rate": 0.005}
    ),
    "dct_ridge": DctRidgeSettings(penalty=100.0),
    "dct_network": DctNetworkSettings(channels=[3, 4, 4, 4], **ADAM | {"learning_rate": 0.01}),
    "radial_logistic": RadialLogisticSettings(**ADAM | {"learning_rate": 0.1}),
    "one_class": OneClassSettings(),
    "pooled_cosine": PooledSettings(width=4, **COSINE),
    "meso4": Meso4Settings(**FAST),
    "meso_inception4": MesoInception4Settings(**FAST),
    "shallow_net_v1": ShallowNetV1Settings(channels=[4, 8], dense=8, **FAST),
    "shallow_net_v3": ShallowNetV3Settings(channels=[4, 4, 8, 4], dense=8, **FAST),
    "gncnn": GncnnSettings(channels=4, front_end=FrontEnd.kv, **FAST),
    "bayar2016": Bayar2016Settings(
        channels=[4, 4], dense=8, front_end=FrontEnd.constrained, **FAST
    ),
    "mislnet": MislNetSettings(
        channels=[4, 4, 4, 8], dense=8, front_end=FrontEnd.constrained, **FAST
    ),
}
"""Small ones of every detector of the package, one with a front end, and of the toys above."""

SIZES = {"shallow_net_v3": 20, "bayar2016": 39, "mislnet": 71}
"""Of the images of each detector that takes none of `SIZE`: the least that it takes."""

BATCHES = 10


def separable(seed: int, name: str = "") -> tuple[Tensor, Tensor]:
    """Grey noise, real as it is; generated, half as strong and with every other column brighter.

    Of the size of a detector's images.
    """
    draws = np.random.default_rng(seed)
    size = SIZES.get(name, SIZE)
    noise = draws.normal(0, 10, (16, 3, size, size))
    noise[1::2] /= 2
    levels = draws.uniform(100, 150, (16, 1, 1, 1)) + noise
    levels[1::2, :, :, ::2] += 30
    levels[1::2, :, :, 1::2] -= 30
    images = torch.from_numpy(levels.clip(0, 255).round()).float()
    return images, torch.tensor([1.0, 0.0] * 8)


@pytest.fixture(scope="module", autouse=True)
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Write the files of trained detectors, and combine them in `SETTINGS`."""
    images, labels = separable(98)
    members = []
    for name in ("radial_spectrum", "colour_statistics"):
        settings: Any = SETTINGS[name]
        std, mean = torch.std_mean(trained(name)(images[labels == 1]))
        card = dataclasses.replace(
            detector_card(real_mean=mean.item(), real_std=std.item()),
            model=name,
            model_settings=dataclasses.asdict(settings),
        )
        members.append(str(tmp_path_factory.mktemp(name) / "detector.safetensors"))
        save_model(Path(members[-1]), trained(name), card.to_file())
    SETTINGS["ensemble"] = EnsembleSettings(members=members, rule=Rule.mean)


def build(name: str, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return SETTINGS[name].build(SIZES.get(name, SIZE), pretrained=False)


def stored(name: str) -> dict[str, Any]:
    """The settings in the file of `trained`'s detector."""
    settings: Any = SETTINGS[name]
    return dataclasses.asdict(settings) | trained(name).file_settings()


def tells_apart(detector: Detector, images: Tensor, labels: Tensor) -> bool:
    """Whether all real images score higher than all generated ones, in evaluation mode."""
    detector.eval()
    with torch.no_grad():
        scores = detector(images)
    return bool(scores[labels == 1].min() > scores[labels == 0].max())


def train(name: str, seed: int = 0, epochs: int = 2, most: int = 0) -> Detector:
    """Train as `Detector` says that it is done; ends in evaluation mode.

    After ``epochs``, training goes on to ``most`` of them until the last images are told apart:
    BatchNorm's running statistics may take longer than weights to be those of the maps.
    """
    detector, data = build(name), [separable(number, name) for number in range(BATCHES)]
    detector.prepare(data)
    optimizer, optimization = detector.optimizer(), detector.optimization
    for epoch in range(max(epochs, most)):
        if epoch >= epochs and tells_apart(detector, *data[-1]):
            break
        detector.train()
        for number, (images, labels) in enumerate(data):
            loss = detector.step(images, labels, Draws.at(seed, epoch, number)).loss
            if optimizer is None or loss is None:
                continue
            if optimization is not None:
                factor = optimization.factor(epoch + (number + 1) / BATCHES, epochs)
                optimizer.param_groups[0]["lr"] = optimization.learning_rate * factor
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            detector.after_step()
    return detector.eval()


@cache
def trained(name: str) -> Detector:
    """A trained detector, which tests leave as it is."""
    return train(name, most=8)


def same(first: Detector, second: Detector) -> bool:
    """Whether all weights and buffers are the same to the bit."""
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


RECIPES = ("cnn_detection", "no_down", "xception", "vgg16")
"""They differ from ``timm`` in values and in the two strides of ``no_down``."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in RECIPES else name
        for name in (*DETECTORS, *OTHERS)
    ],
)
class TestContract:
    """What `Detector` promises of each, after a little training."""

    def test_scores_are_one_float32_an_image_also_under_autocast(self, name: str) -> None:
        images, _ = separable(99, name)
        scores = trained(name)(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = trained(name)(images)
        for one in (scores, rounded):
            assert one.shape == (len(images),)
            assert one.dtype == torch.float32
        torch.testing.assert_close(rounded, scores, rtol=0.05, atol=0.5)

    def test_real_images_score_higher_after_training(self, name: str) -> None:
        assert tells_apart(trained(name), *separable(99, name))

    def test_score_does_not_depend_on_the_rest_of_the_batch(self, name: str) -> None:
        detector = trained(name)
        (images, _), (others, _) = separable(98, name), separable(99, name)
        scores = detector(images)
        alone = torch.cat([detector(image[None]) for image in images])
        torch.testing.assert_close(alone, scores, rtol=1e-4, atol=1e-5)
        others[3] = images[3]
        assert detector(others)[3] == scores[3]

    def test_a_detector_of_any_size_scores_larger_squares(self, name: str) -> None:
        detector, (images, _) = trained(name), separable(99, name)
        larger = images.repeat(1, 1, 2, 2)[..., :-3, :-3]
        with torch.inference_mode():
            parts = detector.crops(larger, images.shape[-1])
            scores = [detector(part) for part in parts]
        assert len(parts) == (1 if detector.any_size else 4)
        assert all(of_part.shape == (len(images),) for of_part in scores)

    def test_score_does_not_depend_on_the_memory_layout(self, name: str) -> None:
        images, _ = separable(99, name)
        scores = trained(name)(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(scores, trained(name)(images), rtol=1e-4, atol=1e-5)

    def test_evaluation_changes_neither_detector_nor_images(self, name: str) -> None:
        detector = train(name, epochs=1)
        images, labels = separable(99, name)
        before = {key: value.clone() for key, value in detector.state_dict().items()}
        detector(images)
        loss, scores, _ = detector.step(images, labels, Draws.at(0, 0, 0))
        detector.features(images)
        assert torch.equal(images, separable(99, name)[0])
        assert all(torch.equal(value, before[k]) for k, value in detector.state_dict().items())
        if loss is not None:
            assert scores is not None
            assert torch.equal(scores, detector(images))

    def test_loss_is_a_finite_float32_also_under_autocast(self, name: str) -> None:
        detector = build(name)
        detector.prepare([separable(0, name)])
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss, scores, _ = detector.step(*separable(0, name), Draws.at(0, 0, 0))
            assert (loss is None) is (detector.optimizer() is None)
            if loss is not None:
                assert loss.shape == ()
                assert loss.dtype == torch.float32
                assert loss.isfinite()
            if scores is not None:
                assert scores.shape == (16,)

    def test_optimizer_has_what_needs_a_gradient_and_all_of_it_gets_one(self, name: str) -> None:
        detector = build(name)
        optimizer = detector.optimizer()
        needing = {key for key, value in detector.named_parameters() if value.requires_grad}
        if optimizer is None:
            assert not needing
            return
        held = {id(value) for group in optimizer.param_groups for value in group["params"]}
        assert held == {id(value) for value in detector.parameters() if value.requires_grad}
        detector.prepare([separable(0, name)])
        loss = detector.step(*separable(0, name), Draws.at(0, 0, 0)).loss
        assert loss is not None
        torch.autograd.backward(loss)
        for key, parameter in detector.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, key
                assert parameter.grad.isfinite().all(), key

    def test_state_dict_is_all_that_was_learnt(self, name: str) -> None:
        torch.manual_seed(1)
        again = (DETECTORS | OTHERS)[name](**stored(name)).build(
            SIZES.get(name, SIZE), pretrained=False
        )
        assert not same(again, trained(name))
        again.load_state_dict(trained(name).state_dict())
        images, _ = separable(99, name)
        assert torch.equal(again.eval()(images), trained(name)(images))

    def test_file_is_all_that_was_learnt(self, name: str, tmp_path: Path) -> None:
        network = {
            "name": name,
            "settings": stored(name),
            "image_size": SIZES.get(name, SIZE),
        }
        path = tmp_path / "detector.safetensors"
        save_model(path, trained(name), {"network": network})
        again = load_model(path, DETECTORS | OTHERS, UPGRADES, pretrained=False).model
        images, _ = separable(99, name)
        assert torch.equal(again(images), trained(name)(images))

    def test_seed_decides_weights_and_training(self, name: str) -> None:
        assert same(build(name, seed=3), build(name, seed=3))
        if any(parameter.requires_grad for parameter in build(name).parameters()):
            assert not same(build(name, seed=3), build(name, seed=4))
        assert same(train(name, epochs=1), train(name, epochs=1))

    def test_features_are_a_row_an_image_or_none(self, name: str) -> None:
        images, _ = separable(99, name)
        features = trained(name).features(images)
        if features is not None:
            assert features.ndim >= 2
            assert len(features) == len(images)
            assert features.isfinite().all()

    def test_saliency_layer_gives_maps_that_explain_or_explaining_is_refused(
        self, name: str
    ) -> None:
        detector, (images, _) = trained(name), separable(99, name)
        layer = detector.saliency_layer()
        if layer is None:
            with pytest.raises(UserError) as raised:
                check_explainable(detector)
            assert raised.value.key == "--explain"
            return
        shapes = []
        hook = layer.register_forward_hook(lambda _, __, out: shapes.append(out.shape))
        detector(images)
        hook.remove()
        ((count, _, *places),) = shapes
        assert count == len(images)
        assert len(places) == 2
        pytest.importorskip("captum")
        check_explainable(detector)
        assert grad_cam(detector, images).shape == (len(images), *places)

    @pytest.mark.filterwarnings("ignore")  # of torch's exporter, about itself
    def test_exported_graph_scores_batches_of_any_size_alike(self, name: str) -> None:
        detector, (images, _) = trained(name), separable(99, name)
        shapes = {"images": {0: torch.export.Dim("batch")}}
        exported = torch.export.export(detector, (images[:2],), dynamic_shapes=shapes).module()
        for batch in (images, images[:1]):
            torch.testing.assert_close(exported(batch), detector(batch), rtol=1e-4, atol=1e-5)


class TestDefaults:
    """What a detector does that says nothing else, and what the toys say."""

    def test_step_is_cross_entropy_of_the_scores(self) -> None:
        detector, (images, labels) = trained("radial_logistic"), separable(99)
        loss, scores, logged = detector.step(images, labels, Draws.at(0, 0, 0))
        logits = detector(images).detach().double().numpy()
        assert loss is not None
        assert scores is not None
        assert scores.tolist() == logits.tolist()
        chances = np.where(labels.numpy() == 1, expit(logits), expit(-logits))
        assert loss.item() == pytest.approx(-np.log(chances).mean(), rel=1e-5)
        assert not logged

    def test_scores_are_logits_where_the_step_is_the_default(self) -> None:
        assert build("dcgan_discriminator").is_probabilistic
        assert build("radial_logistic").is_probabilistic
        assert not build("one_class").is_probabilistic

    def test_features_and_saliency_layer_are_none(self) -> None:
        detector = build("radial_logistic")
        assert detector.features(separable(0)[0]) is None
        assert detector.saliency_layer() is None

    def test_prepare_computes_no_batch(self) -> None:
        def batches() -> Iterable[tuple[Tensor, Tensor]]:
            raise AssertionError("was iterated over")
            yield

        build("pooled_cosine").prepare(batches())

    def test_one_class_detector_learns_nothing_of_generated_images(self) -> None:
        reals = [(images[labels == 1], labels[labels == 1]) for images, labels in [separable(0)]]
        with_generated, without = build("one_class"), build("one_class")
        with_generated.prepare([separable(0)])
        without.prepare(reals)
        assert same(with_generated, without)
        assert with_generated.one_class
        assert not build("pooled_cosine").one_class

    def test_draws_decide_a_step_that_draws(self) -> None:
        def loss(number: int) -> float:
            found = build("pooled_cosine").step(*separable(0), Draws.at(0, 0, number)).loss
            assert found is not None
            return found.item()

        assert loss(0) == loss(0) != loss(1)

    def test_unit_range_is_minus_one_to_one(self) -> None:
        levels = torch.tensor([0.0, 127.5, 255.0])
        assert to_unit_range(levels).tolist() == [-1.0, 0.0, 1.0]


def adam(**changes: Any) -> Optimization:  # noqa: ANN401
    return Optimization(**ADAM | changes)


class TestOptimization:
    @pytest.mark.parametrize(
        ("schedule", "warmup", "epoch", "factor"),
        [
            ("constant", 0, 0.0, 1.0),
            ("constant", 0, 5.0, 1.0),
            ("constant", 2, 0.0, 0.0),
            ("constant", 2, 0.5, 0.25),
            ("constant", 2, 1.5, 0.75),
            ("constant", 2, 2.0, 1.0),
            ("constant", 0.5, 0.125, 0.25),
            ("cosine", 0, 0.0, 1.0),
            ("cosine", 0, 1.25, (1 + math.sqrt(0.5)) / 2),
            ("cosine", 0, 2.5, 0.5),
            ("cosine", 0, 3.75, (1 - math.sqrt(0.5)) / 2),
            ("cosine", 0, 5.0, 0.0),
            ("cosine", 0, 6.0, 0.0),
            ("cosine", 1, 0.0, 0.0),
            ("cosine", 1, 0.5, 0.5),
            ("cosine", 1, 1.0, 1.0),
            ("cosine", 1, 2.0, (1 + math.sqrt(0.5)) / 2),
            ("cosine", 1, 3.0, 0.5),
            ("cosine", 1, 5.0, 0.0),
            ("cosine", 5, 5.0, 1.0),
            ("cosine", 10, 5.0, 0.5),
        ],
    )
    def test_factor_of_five_epochs_is_the_one_worked_by_hand(
        self, schedule: str, warmup: float, epoch: float, factor: float
    ) -> None:
        optimization = adam(schedule=schedule, warmup_epochs=warmup)
        assert optimization.factor(epoch, 5) == pytest.approx(factor, abs=1e-12)

    @pytest.mark.parametrize(
        ("schedule", "warmup", "changes"),
        [("constant", 0, False), ("constant", 0.5, True), ("cosine", 0, True)],
    )
    def test_learning_rate_changes_with_a_schedule_or_a_warm_up(
        self, schedule: str, warmup: float, changes: bool
    ) -> None:
        assert adam(schedule=schedule, warmup_epochs=warmup).changes is changes

    def test_schedule_may_be_plain_text(self) -> None:
        assert adam(schedule="cosine").schedule is Schedule.cosine
        with pytest.raises(ValueError, match="sine wave"):
            adam(schedule="sine wave")

    def test_adam_has_the_settings(self) -> None:
        given = {"learning_rate": 0.25, "betas": [0.125, 0.5], "weight_decay": 0.75}
        optimizer = dcgan_discriminator([4], **given).build(8, pretrained=False).optimizer()
        assert type(optimizer) is torch.optim.Adam
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (0.25, (0.125, 0.5), 0.75)

    def test_frozen_weights_are_left_out_and_none_means_no_optimizer(self) -> None:
        detector = build("pooled_cosine")
        frozen, *rest = detector.parameters()
        frozen.requires_grad_(False)
        optimizer = detector.optimizer()
        assert optimizer is not None
        assert list(map(id, optimizer.param_groups[0]["params"])) == list(map(id, rest))
        assert detector.requires_grad_(False).optimizer() is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("learning_rate", value) for value in (0.0, -1e-4, math.nan, math.inf)),
            *(("weight_decay", value) for value in (-1e-9, math.nan, math.inf)),
            *(("warmup_epochs", value) for value in (-0.5, math.nan, math.inf)),
            *(("betas", value) for value in ([], [0.5], [0.5, 0.9, 0.9])),
            *(("betas", value) for value in ([0.5, 1.0], [-0.1, 0.9], [math.nan, 0.9])),
        ],
    )
    def test_setting_out_of_range_is_refused_by_its_key(self, name: str, value: object) -> None:
        with pytest.raises(UserError) as raised:
            adam(**{name: value})
        assert raised.value.key == f"model.{name}"

    def test_setting_at_its_limit_is_taken(self) -> None:
        adam(betas=[0.0, 0.0], weight_decay=0.0, warmup_epochs=0.0, learning_rate=1e-12)


@pytest.fixture(scope="module")
def paper() -> Detector:
    torch.manual_seed(0)
    return PAPER.build(128, pretrained=False)


class TestPaper:
    def test_shapes_after_every_convolution(self, paper: Detector) -> None:
        shapes = []
        for module in paper.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
        logits = paper(_images(2, 128))
        assert shapes == [(2, 64, 64, 64), (2, 128, 32, 32), (2, 256, 16, 16), (2, 512, 8, 8)]
        assert logits.shape == (2,)

    def test_parameter_count(self, paper: Detector) -> None:
        # Convolution: 16 x inputs x outputs, BatchNorm: 2 x channels, linear unit: inputs + 1.
        # 16 x 3 x 64 + 64, the one convolution with a bias   3,136
        # 16 x  64 x 128 + 2 x 128                          131,328
        # 16 x 128 x 256 + 2 x 256                          524,800
        # 16 x 256 x 512 + 2 x 512                        2,098,176
        # 512 x 8 x 8 + 1                                    32,769
        assert sum(p.numel() for p in paper.parameters()) == 2_790_209

    def test_layers_are_the_papers(self, paper: Detector) -> None:
        layers = [m for m in paper.modules() if not list(m.children())]
        block = [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]
        first = [Fixed, nn.Conv2d, nn.LeakyReLU]
        assert [type(layer) for layer in layers] == [*first, *block, *block, *block, nn.Linear]
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                assert (layer.kernel_size, layer.stride) == ((4, 4), (2, 2))
                assert layer.padding == (1, 1)
            if isinstance(layer, nn.LeakyReLU):
                assert layer.negative_slope == 0.2

    def test_scores_are_those_of_the_network_written_out(self) -> None:
        torch.manual_seed(0)
        detector = TINY.build(8, pretrained=False)
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
            expected = by_hand.train(training)(images / 127.5 - 1)[:, 0]
            torch.testing.assert_close(detector.train(training)(images), expected)

    def test_weights_start_as_dcgans(self, paper: Detector) -> None:
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
            return nn.utils.parameters_to_vector(SMALL.build(16, pretrained=False).parameters())

        assert torch.equal(weights(0), weights(0))
        assert not torch.equal(weights(0), weights(1))


class TestPaperTraining:
    def test_gradient_reaches_every_parameter(self) -> None:
        torch.manual_seed(0)
        detector = PAPER.build(32, pretrained=False)
        loss = detector.step(_images(4, 32), torch.ones(4), Draws.at(0, 0, 0)).loss
        assert loss is not None
        torch.autograd.backward(loss)
        for name, parameter in detector.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_learns_sixteen_random_images_by_heart(self) -> None:
        torch.manual_seed(0)
        settings = dcgan_discriminator([8, 16, 32], learning_rate=2e-3)
        detector = settings.build(32, pretrained=False)
        images, labels = _images(16, 32), torch.tensor([0.0, 1.0] * 8)
        optimizer = detector.optimizer()
        assert optimizer is not None
        for number in range(40):
            loss = detector.step(images, labels, Draws.at(0, 0, number)).loss
            assert loss is not None
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            reached = loss.item()
        assert reached < 0.01
        assert torch.equal(detector(images) > 0, labels == 1)

    def test_logits_are_float32_under_bfloat16_autocast(self) -> None:
        torch.manual_seed(0)
        detector, images = SMALL.build(32, pretrained=False).eval(), _images(64, 32)
        exact = detector(images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = detector(images)
        assert logits.dtype == torch.float32
        assert not torch.equal(logits, exact)  # the convolutions did run in bfloat16
        assert len(logits.unique()) == len(logits) > len(logits.bfloat16().unique())


class TestPaperFrontEnd:
    def test_first_convolution_gets_the_front_end(self) -> None:
        blocks = torch.tensor([[0.0, 32.0], [64.0, 96.0]]).tile(4, 4)
        images = blocks.expand(1, 3, 8, 8) + 100
        plain, on_residual = (
            dcgan_discriminator([2, 3], front_end=name).build(8, pretrained=False).eval()
            for name in ("rgb", "npr")
        )
        on_residual.load_state_dict(plain.state_dict())
        residual = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).tile(4, 4).expand(1, 3, 8, 8)
        torch.testing.assert_close(on_residual(images), plain((residual + 1) * 127.5))
        assert on_residual(images) != plain(images)

    def test_settings_without_one_have_none(self) -> None:
        assert dcgan_discriminator([4]) == dcgan_discriminator([4], front_end="rgb")
        with pytest.raises(ValueError, match="edges"):
            dcgan_discriminator([4], front_end="edges")


class TestPaperSettings:
    @pytest.mark.parametrize("channels", [[], [0], [64, -1]])
    def test_channels_out_of_range_are_refused(self, channels: list[int]) -> None:
        with pytest.raises(UserError) as raised:
            dcgan_discriminator(channels)
        assert raised.value.key == "model.channels"

    @pytest.mark.parametrize("slope", [-0.1, 1.0, math.nan])
    def test_slope_out_of_range_is_refused(self, slope: float) -> None:
        with pytest.raises(UserError) as raised:
            dcgan_discriminator([64], leaky_relu_slope=slope)
        assert raised.value.key == "model.leaky_relu_slope"

    def test_learning_rate_out_of_range_is_refused(self) -> None:
        with pytest.raises(UserError) as raised:
            dcgan_discriminator([64], learning_rate=0.0)
        assert raised.value.key == "model.learning_rate"

    @pytest.mark.parametrize("image_size", [1, 8, 100, 127])
    def test_image_size_that_cannot_be_halved_four_times_is_refused(self, image_size: int) -> None:
        with pytest.raises(UserError, match="16") as raised:
            PAPER.build(image_size, pretrained=False)
        assert raised.value.key == "dataset.image_size"
