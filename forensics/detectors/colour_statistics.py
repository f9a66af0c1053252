"""Third-order statistics of colour residuals, and linear or one-class models of them.

Source: Li, Li, Tan and Huang, Identification of deep network generated images using disparities in
color components (arXiv 1808.07276; Signal Processing 174, 2020). The paper's: the 588 features.
Ours: the models. The paper classifies by an ensemble of Fisher discriminants on random subspaces
and, knowing real images alone, by a one-class SVM with an RBF kernel; here these are one Fisher
discriminant and one Gaussian, both with Ledoit and Wolf's shrinkage. They have closed forms, no
setting to choose, one matrix product in the exported graph, and no support vectors, which would be
features of training images, in the detector file.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from forensics import checks
from forensics.detectors.base import Detector, Step
from forensics.preprocess.base import Draws

FEATURES = 588
"""288 of the signs of R, G and B together, then 75 each of H, S, Cb and Cr."""

TRUNCATION = 2
"""Largest absolute value of a residual of H, S, Cb and Cr; larger ones are clipped to it."""


def chroma(rgb: Tensor) -> Tensor:
    """H and S of HSV, Cb and Cr of ITU-R BT.601 in studio range, as 8-bit numbers.

    By integers, so that every device rounds alike; halves are rounded up, as in Matlab.

    Args:
        rgb: ``(B, 3, H, W)`` int32 in [0, 255].

    Returns:
        ``(B, 4, H, W)`` int32; 255 is a full turn of H, which is 0 for greys.
    """
    red, green, blue = rgb.unbind(1)
    most = torch.maximum(torch.maximum(red, green), blue)
    span = most - torch.minimum(torch.minimum(red, green), blue)
    # Sixths of a turn, times the span.
    turned = torch.where(
        most == red,
        (green - blue) % (6 * span).clamp(min=1),
        torch.where(most == green, blue - red + 2 * span, red - green + 4 * span),
    )
    hue = _divided(255 * turned, 6 * span)
    saturation = _divided(255 * span, most)
    # Matlab's coefficients, times 1000.
    cb = -37_797 * red - 74_203 * green + 112_000 * blue
    cr = 112_000 * red - 93_786 * green - 18_214 * blue
    divisor = torch.full_like(cb, 255_000)
    cb, cr = (_divided(shifted + 128 * divisor, divisor) for shifted in (cb, cr))
    return torch.stack([hue, saturation, cb, cr], 1)


def _divided(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A quotient of integers, rounded; 0 where the denominator is 0. None is below 0."""
    doubled = 2 * denominator.clamp(min=1)
    quotient = torch.div(2 * numerator + doubled // 2, doubled, rounding_mode="floor")
    return torch.where(denominator > 0, quotient, 0)


def colour_features(images: Tensor) -> Tensor:
    """Co-occurrences of three consecutive residuals, of a pixel and each of its four neighbours.

    The residual of R, G and B together is three bits, whether the pixel is above its neighbour;
    that of H, S, Cb and Cr is the difference, clipped. A triple and its reverse count as the same
    one. Shares of the triples along rows and along columns are added up over the four neighbours,
    so that the features of each component sum to 8. The outermost pixels, which lack a neighbour,
    have no residual.

    Args:
        images: ``(B, 3, S, S)`` float in [0, 255], S at least 5; rounded to whole grey levels, as
            augmented images may not have them.

    Returns:
        ``(B, 588)`` float32.
    """
    rgb = images.float().round()
    red, green, blue = (_differences(rgb) > 0).float().unbind(1)
    signs = red + 2 * green + 4 * blue
    clipped = _differences(chroma(rgb.int()).float()).clamp(-TRUNCATION, TRUNCATION) + TRUNCATION
    return torch.cat(
        [
            _co_occurrences(signs[:, None], 8).flatten(1),
            _co_occurrences(clipped, 2 * TRUNCATION + 1).flatten(1),
        ],
        dim=1,
    )


def _differences(values: Tensor) -> Tensor:
    """Differences of inner pixels to the right, left, lower and upper neighbour: dimension 2."""
    inner = values[..., 1:-1, 1:-1]
    right, left = values[..., 1:-1, 2:], values[..., 1:-1, :-2]
    below, above = values[..., 2:, 1:-1], values[..., :-2, 1:-1]
    return inner[:, :, None] - torch.stack([right, left, below, above], dim=2)


def _co_occurrences(symbols: Tensor, levels: int) -> Tensor:
    """Shares of triples of symbols, those of rows and of columns added up over the neighbours.

    Args:
        symbols: ``(B, P, 4, h, h)`` float32, whole numbers in [0, levels).
        levels: number of symbols.

    Returns:
        ``(B, P, levels * levels * (levels + 1) / 2)`` float32, ordered by the middle symbol, then
        by the lower and the higher of the outer ones.
    """
    rows = _codes(symbols[..., :-2], symbols[..., 1:-1], symbols[..., 2:], levels)
    columns = _codes(symbols[..., :-2, :], symbols[..., 1:-1, :], symbols[..., 2:, :], levels)
    counts = rows.new_zeros(rows.shape[0], rows.shape[1], levels**3)
    for codes in (rows.flatten(2).long(), columns.flatten(2).long()):
        counts = counts.scatter_add(2, codes, counts.new_ones(1, 1, 1).expand(codes.shape))
    counts = counts / (rows.shape[-1] * rows.shape[-2])
    outer = torch.triu_indices(levels, levels, device=rows.device)
    middle = torch.arange(levels, device=rows.device)[:, None]
    low, high = outer[0], outer[1]
    triples = counts[..., _codes(low, middle, high, levels).flatten()]
    reverses = counts[..., _codes(high, middle, low, levels).flatten()]
    palindromes = (low == high).expand(levels, -1).flatten()
    return torch.where(palindromes, triples, triples + reverses)


def _codes(first: Tensor, middle: Tensor, last: Tensor, levels: int) -> Tensor:
    return (first * levels + middle) * levels + last


def shrunk_correlation(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation of features by Ledoit and Wolf's shrinkage, and their standard deviations.

    Args:
        samples: ``(n, F)`` float64.

    Returns:
        ``(F, F)`` and ``(F,)``; a feature that is the same in all samples has standard deviation 1
        and no correlation.

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices
    (Journal of Multivariate Analysis 88, 2004).
    """
    count, width = samples.shape
    centred = samples - samples.mean(dim=0)
    std = centred.square().mean(dim=0).sqrt()
    # Of equal numbers the rounded mean may differ from them.
    varies = (samples != samples[0]).any(dim=0)
    std = torch.where(varies, std, 1.0)
    scaled = torch.where(varies, centred / std, 0.0)
    correlation = scaled.T @ scaled / count
    variance = correlation.trace() / width  # of the target, a multiple of the identity
    squares = correlation.square().sum()
    distance = squares - width * variance**2
    noise = (scaled.square().sum(dim=1).square().sum() / count - squares) / count
    # Without a distance the target is reached already.
    share = (noise / distance).clamp(0, 1) if distance > 0 else torch.zeros_like(distance)
    target = variance * torch.eye(width, dtype=samples.dtype, device=samples.device)
    return (1 - share) * correlation + share * target, std


class ColourDiscriminant(Detector):
    """Fisher's linear discriminant on colour statistics, fitted in closed form."""

    mean: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("weight", torch.zeros(FEATURES))

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit to the training images; both classes count alike, however many images they have."""
        found = [(colour_features(images).double(), labels) for images, labels in batches]
        means, covariances = [], []
        for label in (0, 1):
            samples = torch.cat([features[labels == label] for features, labels in found])
            correlation, std = shrunk_correlation(samples)
            means.append(samples.mean(dim=0))
            covariances.append(correlation * std * std[:, None])
        generated, real = means
        inverse = torch.linalg.pinv(covariances[0] + covariances[1], hermitian=True) * 2
        self.mean.copy_((generated + real) / 2)
        self.weight.copy_(inverse @ (real - generated))

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """Nothing: `prepare` has fitted everything."""
        return Step(None, None)

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255].

        Returns:
            ``(B,)`` float32, above 0 if nearer to the real images' mean than to the generated ones'
            by the covariance that both classes share.
        """
        with torch.autocast(images.device.type, enabled=False):
            scores: Tensor = (colour_features(images) - self.mean) @ self.weight
        return scores

    def features(self, images: Tensor) -> Tensor:
        """The 588 numbers, ``(B, 588)``."""
        return colour_features(images)


class ColourGaussian(Detector):
    """Distance of colour statistics to those of real images, fitted in closed form."""

    one_class = True
    mean: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("whitening", torch.zeros(FEATURES, FEATURES))

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit a Gaussian to the real training images; generated ones have no effect."""
        real = [colour_features(images[labels == 1]) for images, labels in batches]
        samples = torch.cat(real).double()
        correlation, std = shrunk_correlation(samples)
        values, vectors = torch.linalg.eigh(correlation)
        # Directions without variance, in which all training images are alike, do not count.
        scales = torch.where(values > 1e-9, values, torch.inf).rsqrt()
        self.mean.copy_(samples.mean(dim=0))
        self.whitening.copy_(vectors * scales / std[:, None])

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """Nothing: `prepare` has fitted everything."""
        return Step(None, None)

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255].

        Returns:
            ``(B,)`` float32: Mahalanobis distances, negated.
        """
        distances: Tensor = self.features(images).norm(dim=1)
        return -distances

    def features(self, images: Tensor) -> Tensor:
        """Whitened features, ``(B, 588)``: over real images of mean 0, uncorrelated."""
        with torch.autocast(images.device.type, enabled=False):
            whitened: Tensor = (colour_features(images) - self.mean) @ self.whitening
        return whitened


@dataclass(kw_only=True)
class ColourStatisticsSettings:
    """Settings of the model.

    Attributes:
        one_class: learn from real images alone; then ``dataset.train_on`` may be empty.
    """

    one_class: bool

    def build(self, image_size: int, *, pretrained: bool) -> Detector:
        """Make the model, for images of at least 5 px."""
        checks.image_size(image_size, least=5)
        return ColourGaussian() if self.one_class else ColourDiscriminant()
