"""Simulated camera and generator artefacts of the toy faces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from forensics.data.demo.scene import FRAME, FRAMED_SIZE, Plane, Planes, Rng, colour_of, draw_scene
from forensics.errors import UserError

Artefact = Callable[[Planes, Rng], Planes]

RENDER_VERSION = 2
"""Part of every image's seed and of ``source.json``; increased whenever any pixel changes."""


def _to_image(planes: Planes) -> Image.Image:
    grey_levels = np.clip(planes, 0, 1) * 255 + 0.5
    return Image.fromarray(np.ascontiguousarray(grey_levels.astype(np.uint8).transpose(1, 2, 0)))


def _to_planes(image: Image.Image) -> Planes:
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32) * np.float32(1 / 255)


def _camera(scene: Planes, rng: Rng) -> Planes:
    """Photograph a scene: ``(3, 204, 204)`` to ``(3, 136, 136)``, both in [0, 1].

    White balance and tone curve, lens blur, shot and read noise of varied strength, and an
    antialiased reduction like that of CelebA-HQ.
    """
    gains = colour_of(*(rng.uniform(0.85, 1.12) * rng.normal(1, 0.03, 3)))
    exposed = np.clip(scene * gains[:, None, None], 0, 1) ** np.float32(rng.uniform(0.85, 1.15))
    seen = _to_planes(_to_image(exposed).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.9))))
    read, shot = rng.uniform(0.008, 0.016), rng.uniform(0.015, 0.035)
    noise = rng.standard_normal(seen.shape, dtype=np.float32)
    noisy = seen + noise * np.sqrt(read**2 + shot**2 * seen)
    size = (FRAMED_SIZE, FRAMED_SIZE)
    return _to_planes(_to_image(noisy).resize(size, Image.Resampling.LANCZOS))


def _convolve(planes: Planes, kernel: Plane) -> Planes:
    """Correlate each plane with one ``(K, K)`` kernel; ``K - 1`` rows and columns are lost."""
    size = len(kernel)
    rows, columns = planes.shape[1] - size + 1, planes.shape[2] - size + 1
    out = np.zeros((planes.shape[0], rows, columns), dtype=np.float32)
    for i in range(size):
        for j in range(size):
            out += kernel[i, j] * planes[:, i : i + rows, j : j + columns]
    return out


def _halved(image: Planes) -> Planes:
    """The means of 2x2 pixels."""
    _, rows, columns = image.shape
    means: Planes = image.reshape(3, rows // 2, 2, columns // 2, 2).mean(axis=(2, 4))
    return means


def _nearest(low: Planes, border: int) -> Planes:
    """Nearest-neighbour upsampling by 2, with ``border`` more pixels on each side."""
    # The border repeats edge pixels; zeros would make a dark frame, a shortcut to the class.
    high = low.repeat(2, axis=1).repeat(2, axis=2)
    return np.pad(high, ((0, 0), (border, border), (border, border)), mode="edge")


def _kernel(rng: Rng, side: float, jitter: float) -> Plane:
    """A 3x3 kernel of sum 1: ``side``, ``1 - 2 * side``, ``side`` along each axis, plus noise."""
    line = colour_of(side, 1 - 2 * side, side)
    kernel: Plane = np.outer(line, line) + jitter * rng.standard_normal((3, 3), dtype=np.float32)
    kernel /= kernel.sum()
    return kernel


def _pggan(low: Planes, rng: Rng) -> Planes:
    """Nearest-neighbour upsampling, then two 3x3 convolutions: PGGAN's block, arXiv 1710.10196.

    The first convolution smooths, the second sharpens; both differ from image to image.
    """
    smooth = _kernel(rng, rng.uniform(0.10, 0.25), 0.02)
    sharpen = _kernel(rng, -rng.uniform(0.10, 0.30), 0.02)
    return _convolve(_convolve(_nearest(low, 2), smooth), sharpen)


def _dcgan(low: Planes, rng: Rng) -> Planes:
    """A transposed 4x4 convolution of stride 2: DCGAN's layer, arXiv 1511.06434.

    Zeros are inserted between the pixels and the result is convolved with a 4x4 kernel. A learned
    kernel weights the four phases unequally: the checkerboard of doi 10.23915/distill.00003.
    """
    low = np.pad(low, ((0, 0), (2, 2), (2, 2)), mode="edge")
    zeros_between = np.zeros((3, 2 * low.shape[1], 2 * low.shape[2]), dtype=np.float32)
    zeros_between[:, ::2, ::2] = low
    line = colour_of(-0.05, 0.80, 0.80, -0.05) * np.float32(2 / 1.5)
    kernel = np.outer(line, line) + 0.02 * rng.standard_normal((4, 4), dtype=np.float32)
    kernel *= 4 / kernel.sum()
    return _convolve(zeros_between[:, 2:-3, 2:-3], kernel)


def _wgan_gp(low: Planes, rng: Rng) -> Planes:
    """A residual block with depth-to-space upsampling: WGAN-GP's generator, arXiv 1704.00028.

    The published ``UpsampleConv`` applies depth-to-space to four equal copies, which repeats each
    pixel, then convolves; the block adds this shortcut to two 3x3 convolutions, and a last
    convolution gives RGB.
    """
    high = _nearest(low, 3)
    branch = _convolve(
        _convolve(high, _kernel(rng, rng.uniform(0, 0.3), 0.15)),
        _kernel(rng, rng.uniform(-0.3, 0.1), 0.15),
    )
    share = rng.uniform(0.3, 0.7)
    block = (1 - share) * high[:, 2:-2, 2:-2] + share * branch
    return _convolve(block, _kernel(rng, rng.uniform(-0.2, 0.2), 0.03))


@dataclass(frozen=True)
class DemoGenerator:
    """A simulated generator.

    Attributes:
        artefact: doubles the size of a ``(3, H, W)`` image as the generator's blocks do.
        weakest: smallest share of the artefact in an image, 0 to 1.
        strongest: largest share; drawn uniformly between the two for each image.
    """

    artefact: Artefact
    weakest: float
    strongest: float


# Share of exceptions: photographs that were upscaled by repeating pixels and sharpened, as PGGAN
# does, and generated images without artefacts. No detector classifies them correctly.
_ODD_SHARE = 0.02

# The shares set how hard the toy is, for the paper's detector after five epochs on 1,000 images
# per class: some errors on the generator it has seen, many on the others, never all or none.
DEMO_SOURCES: dict[str, DemoGenerator | None] = {
    "demo_real": None,
    "demo_pggan": DemoGenerator(_pggan, 0.5, 1.0),
    "demo_dcgan": DemoGenerator(_dcgan, 0.0, 0.45),
    "demo_wgan_gp": DemoGenerator(_wgan_gp, 0.1, 0.6),
}
"""Generator of each source by the source's name; None for the real source."""


def _detail(planes: Planes) -> Planes:
    """The Laplacian, scaled to 1 for the finest checkerboard: edges, noise and grids."""
    kernel = colour_of(0, -1, 0, -1, 4, -1, 0, -1, 0).reshape(3, 3) / 8
    return _convolve(np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge"), kernel)


def _regenerate(
    image: Planes, artefact: Artefact, strength: float, rng: Rng, stages: int = 2
) -> Planes:
    """Regenerate an image from a smaller copy, as a generator's last ``stages`` blocks would.

    ``strength`` is the share of the block's output; the rest is the image itself, in place of the
    detail that a real generator's many channels would add.
    """
    low = _halved(image)
    if stages > 1:
        low = _regenerate(low, artefact, 0.8 * strength, rng, stages - 1)
    remade: Planes = image + strength * (artefact(low, rng) - image)
    # Upsampling changes the amount of fine detail; without this correction the amount of noise,
    # not its pattern, would be a shortcut to the class.
    detail = _detail(remade)
    gain = np.median(np.abs(_detail(image))) / (np.median(np.abs(detail)) + 1e-6)
    remade += (gain - 1) * detail
    return remade


def require_known(sources: Iterable[str]) -> None:
    """Refuse names that are not among `DEMO_SOURCES`."""
    for source in sources:
        if source not in DEMO_SOURCES:
            known = ", ".join(DEMO_SOURCES)
            raise UserError(f"{source!r} is not a demo source; the demo has {known}")


def render(source: str, index: int) -> NDArray[np.uint8]:
    """Draw one image of a demo source.

    Args:
        source: a key of ``DEMO_SOURCES``.
        index: number of the image, >= 0.

    Returns:
        ``(128, 128, 3)`` RGB in grey levels; a function of the arguments alone.

    Raises:
        UserError: if the source is not a demo source.
    """
    require_known([source])
    number = list(DEMO_SOURCES).index(source)
    rng = np.random.default_rng(np.random.SeedSequence([RENDER_VERSION, number, index]))
    image = _camera(draw_scene(rng), rng)
    generator = DEMO_SOURCES[source]
    if rng.random() < _ODD_SHARE:
        generator = DEMO_SOURCES["demo_pggan"] if generator is None else None
    if generator is not None:
        strength = rng.uniform(generator.weakest, generator.strongest)
        image = _regenerate(image, generator.artefact, strength, rng)
    return np.asarray(_to_image(image[:, FRAME:-FRAME, FRAME:-FRAME]))
