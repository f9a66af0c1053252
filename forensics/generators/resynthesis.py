"""Generated images made of real ones, by small autoencoders of drawn architectures.

What generators share lies in how they upsample, convolve, normalise and end, not in what they
show. An autoencoder gives a real image these traces and leaves it its content; many of them, each
of another architecture, leave a detector nothing to learn but such traces.

Source: after AutoGAN (arXiv 1907.06515) and model synthesis (arXiv 2307.15977), whose autoencoders
differ likewise in upsampling, normalisation and activation.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, softplus

from forensics import checks
from forensics.preprocess.degradations import match_spectrum


class Upsampler(StrEnum):
    """How a decoder doubles height and width; the families of `Architecture`."""

    nearest = "nearest"
    bilinear = "bilinear"
    transposed_2 = "transposed_2"
    transposed_3 = "transposed_3"
    transposed_4 = "transposed_4"
    pixel_shuffle = "pixel_shuffle"


class Norm(StrEnum):
    """Normalisation in a decoder."""

    none = "none"
    batch = "batch"
    instance = "instance"


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
}
CODE_NUMBERS = 24 * 32 * 32
"""Numbers between encoder and decoder for an image of 128 pixels: half of its own."""

CROP = 64
BATCH = 8
LEARNING_RATE = 2e-3
OUTER, MAX_UPSAMPLINGS = 2, 5
CRITIC_WEIGHT = 0.02
"""Of the critic's loss beside an L1 loss in the scale [-1, 1]."""


@dataclass(frozen=True)
class Architecture:
    """What one autoencoder is and how it is trained.

    Attributes:
        upsampler: how its decoder doubles the size.
        upsamplings: how often, 1 to 5; the encoder halves as often.
        width: channels at full size.
        kernel_size: of the convolutions between, 3 or 5 pixels.
        norm: normalisation after each.
        activation: of `ACTIVATIONS`.
        activation_first: whether normalisation follows the activation rather than precedes it.
        tanh: whether it ends in tanh rather than in the last convolution.
        critic: whether a small critic's loss is added to the L1 loss, so that not all are blurred.
        steps: of training, from barely to settled.
    """

    upsampler: Upsampler
    upsamplings: int
    width: int
    kernel_size: int
    norm: Norm
    activation: str
    activation_first: bool
    tanh: bool
    critic: bool
    steps: int

    @classmethod
    def draw(
        cls,
        draws: np.random.Generator,
        upsampler: Upsampler,
        max_upsamplings: int,
        steps: Sequence[int],
    ) -> "Architecture":
        """Draw all but the upsampler, each with equal chances, the steps log-uniformly.

        Args:
            draws: source of the draws.
            upsampler: given.
            max_upsamplings: the most that there can be.
            steps: the least and the most.
        """
        return cls(
            upsampler,
            upsamplings=int(draws.integers(1, max_upsamplings, endpoint=True)),
            width=int(draws.choice([8, 12, 16, 24])),
            kernel_size=int(draws.choice([3, 3, 5])),
            norm=Norm(draws.choice(list(Norm))),
            activation=str(draws.choice(list(ACTIVATIONS))),
            activation_first=bool(draws.integers(2)),
            tanh=bool(draws.integers(2)),
            critic=bool(draws.integers(3) == 0),
            steps=round(math.exp(draws.uniform(*np.log(steps)))),
        )


class Autoencoder(nn.Module):
    """A convolutional autoencoder without a fixed size.

    Its encoder is of convolutions 4x4 of stride 2. Down to a quarter of the size it is as other
    autoencoders; what is deeper is added to what is there, so that a decoder of many steps does
    not lose what the image shows.

    Args:
        architecture: of its decoder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = one = architecture
        outer = min(one.upsamplings, OUTER)
        code = CODE_NUMBERS * 4**outer // 128**2
        widths = [one.width * 2**number for number in range(outer)]
        self.encoder = nn.Sequential(*_encoder([3, *(2 * width for width in widths)]))
        self.encoder.append(nn.Conv2d(2 * widths[-1], code, 3, padding=1))
        inner = [code, *[2 * code] * (one.upsamplings - outer)]
        self.inner = nn.Sequential(*_encoder(inner), *_decoder(one, inner[::-1]))
        last = nn.Conv2d(widths[0], 3, one.kernel_size, padding=one.kernel_size // 2)
        self.decoder = nn.Sequential(*_decoder(one, [code, *reversed(widths)]), last)
        if one.tanh:
            self.decoder.append(nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct ``(B, 3, H, W)`` in about [-1, 1]; H and W multiples of 2 to the depth."""
        code = self.encoder(images)
        if len(self.inner):
            code = code + self.inner(code)
        reconstructed: Tensor = self.decoder(code)
        return reconstructed


def _encoder(channels: Sequence[int]) -> list[nn.Module]:
    """Layers that halve height and width from each number of channels to the next."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return layers


def _decoder(one: Architecture, channels: Sequence[int]) -> list[nn.Module]:
    """Layers that double height and width from each number of channels to the next."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(channels):
        layers += [*_doubling(one, inputs, outputs), *_after(one, outputs)]
    return layers


def _doubling(one: Architecture, inputs: int, outputs: int) -> list[nn.Module]:
    """Layers from ``inputs`` channels to ``outputs`` at twice the height and width."""
    side, half = one.kernel_size, one.kernel_size // 2
    if one.upsampler is Upsampler.pixel_shuffle:
        return [nn.Conv2d(inputs, 4 * outputs, side, padding=half), nn.PixelShuffle(2)]
    if one.upsampler in (Upsampler.nearest, Upsampler.bilinear):
        enlarge = nn.Upsample(scale_factor=2, mode=str(one.upsampler))
        return [enlarge, nn.Conv2d(inputs, outputs, side, padding=half)]
    kernel, padding, output_padding = {
        Upsampler.transposed_2: (2, 0, 0),
        Upsampler.transposed_3: (3, 1, 1),
        Upsampler.transposed_4: (4, 1, 0),
    }[one.upsampler]
    return [nn.ConvTranspose2d(inputs, outputs, kernel, 2, padding, output_padding)]


def _after(one: Architecture, channels: int) -> list[nn.Module]:
    norms: dict[Norm, list[nn.Module]] = {
        Norm.none: [],
        Norm.batch: [nn.BatchNorm2d(channels)],
        Norm.instance: [nn.GroupNorm(channels, channels)],
    }
    activation = ACTIVATIONS[one.activation]()
    return (
        [activation, *norms[one.norm]] if one.activation_first else [*norms[one.norm], activation]
    )


class Critic(nn.Sequential):
    """Scores patches, higher for real: ``(B, 3, H, W)`` to ``(B, 1, H / 4, W / 4)``."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 1, 3, padding=1),
        )


class Resynthesis(nn.Module):
    """Autoencoders that make generated images of real ones.

    Args:
        architectures: one for each.
        per_image: images to make of each real one.
        spectrum: range of the share of `match_spectrum`, in [0, 1].

    Attributes:
        autoencoders: in this order.
        per_image: likewise.
    """

    def __init__(
        self, architectures: Sequence[Architecture], per_image: int, spectrum: Sequence[float]
    ) -> None:
        super().__init__()
        self.autoencoders = [Autoencoder(architecture) for architecture in architectures]
        for number, autoencoder in enumerate(self.autoencoders):
            self.add_module(str(number), autoencoder)
        self.per_image = per_image
        self.spectrum = spectrum

    def chosen(self, number: int, seed: int) -> tuple[int, float]:
        """The autoencoder that makes an image, and the share of `match_spectrum`.

        Args:
            number: of the image.
            seed: decides both, together with the number.
        """
        draws = np.random.default_rng([seed, number])
        by = int(draws.integers(len(self.autoencoders)))
        return by, float(draws.uniform(self.spectrum[0], self.spectrum[1]))

    @torch.no_grad()
    def remake(self, rows: NDArray[np.uint8], numbers: Sequence[int], seed: int) -> Tensor:
        """Make generated images of some real ones, each by an autoencoder drawn for it.

        Args:
            rows: ``(n, S, S, 3)`` the real images.
            numbers: of the images to make, one for each; with ``seed`` they decide all draws.
            seed: see `chosen`.

        Returns:
            ``(n, 3, S, S)`` float32 in [-1, 1].
        """
        device = next(self.parameters()).device
        originals = _to_images(rows).to(device)
        images = torch.empty_like(originals)
        for position, number in enumerate(numbers):
            by, share = self.chosen(number, seed)
            original = originals[position : position + 1]
            made = self.autoencoders[by](original)
            images[position] = match_spectrum(made, original, share)[0]
        return images.clamp_(-1, 1)


def fit(
    autoencoder: Autoencoder, critic: Critic, rows: NDArray[np.uint8], draws: np.random.Generator
) -> float:
    """Train one autoencoder on crops of some images, by an L1 loss at two scales.

    Args:
        autoencoder: with fresh weights; ends in evaluation mode.
        critic: likewise, where both are to compute; used if the architecture has one.
        rows: ``(n, S, S, 3)`` the images.
        draws: source of the crops.

    Returns:
        The mean error of the last tenth of the steps, in grey levels.
    """
    device = next(autoencoder.parameters()).device
    side, steps = min(CROP, rows.shape[1]), autoencoder.architecture.steps
    autoencoder.train()
    optimizer = torch.optim.Adam(autoencoder.parameters(), LEARNING_RATE)
    critics = torch.optim.Adam(critic.parameters(), LEARNING_RATE, (0.5, 0.99))
    errors = []
    for _ in range(steps):
        images = _to_images(_crops(rows, side, draws)).to(device)
        made = autoencoder(images)
        loss = (made - images).abs().mean()
        errors.append(loss.detach())
        loss = loss + (avg_pool2d(made, 2) - avg_pool2d(images, 2)).abs().mean()
        if autoencoder.architecture.critic:
            loss = loss + CRITIC_WEIGHT * softplus(-critic(made)).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if autoencoder.architecture.critic:
            critics.zero_grad()
            on_both = softplus(-critic(images)).mean() + softplus(critic(made.detach())).mean()
            torch.autograd.backward(on_both)
            critics.step()
    autoencoder.eval()
    return float(torch.stack(errors[-math.ceil(steps / 10) :]).mean()) * 127.5


def _crops(rows: NDArray[np.uint8], side: int, draws: np.random.Generator) -> NDArray[np.uint8]:
    """A batch of drawn crops, ``(BATCH, side, side, 3)``."""
    chosen = draws.integers(len(rows), size=BATCH)
    tops, lefts = draws.integers(rows.shape[1] - side + 1, size=(2, BATCH))
    places = zip(chosen, tops, lefts, strict=True)
    return np.stack([rows[row, top:, left:][:side, :side] for row, top, left in places])


def _to_images(rows: NDArray[np.uint8]) -> Tensor:
    """``(n, S, S, 3)`` grey levels to ``(n, 3, S, S)`` float32 in [-1, 1]."""
    return torch.from_numpy(np.array(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass
class ResynthesisSettings:
    """Settings of resynthesis.

    Attributes:
        count: of autoencoders.
        families: upsamplers, in turns over the autoencoders; kept apart, they show how what is
            learnt of some carries over to others.
        steps: the least and the most of an autoencoder's training.
        per_image: images made of each real one.
        seed: of the architectures, >= 0.
        spectrum: the least and the largest share by which the spectrum of an image is moved to its
            original's, in [0, 1]; drawn for each image. Earlier files have none.
    """

    count: int
    families: list[Upsampler]
    steps: list[int]
    per_image: int
    seed: int
    spectrum: list[float] = field(default_factory=lambda: [0.0, 1.0])

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        self.families = [Upsampler(family) for family in self.families]  # text in a file
        checks.at_least(self, "generator.", count=1, per_image=1, seed=0)
        checks.require(bool(self.families), "generator.families", self.families, "name one")
        in_order = len(self.steps) == 2 and 1 <= self.steps[0] <= self.steps[1]
        checks.require(in_order, "generator.steps", self.steps, "be the least and the most steps")
        in_order = len(self.spectrum) == 2 and 0 <= self.spectrum[0] <= self.spectrum[1] <= 1
        range_ = "be the least and the largest share, in [0, 1]"
        checks.require(in_order, "generator.spectrum", self.spectrum, range_)

    def build(self, image_size: int) -> Resynthesis:
        """Make the autoencoders, with fresh weights from torch's global generator.

        Args:
            image_size: height and width of the images in pixels.

        Raises:
            UserError: if ``image_size`` is odd.
        """
        halvings = (image_size & -image_size).bit_length() - 1
        checks.require(halvings >= 1, "dataset.image_size", image_size, "be even")
        draws = np.random.default_rng(self.seed)
        return Resynthesis(
            [
                Architecture.draw(
                    draws,
                    self.families[number % len(self.families)],
                    min(MAX_UPSAMPLINGS, halvings),
                    self.steps,
                )
                for number in range(self.count)
            ],
            self.per_image,
            self.spectrum,
        )
