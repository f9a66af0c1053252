"""Baseline JPEG and back, on the images' device: by libjpeg on a CPU, else in its arithmetic.

With tensors only the losses are computed: the entropy coding that follows them is lossless.
Sources: ITU-T T.81 (tables of Annex K), JFIF 1.02 (colours), and libjpeg (all that these leave
open: rounding, edges, the scaling of the tables by a quality, and how chroma is made smaller and
larger again).
"""

import io

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor, nn

MCU = 16
"""Height and width in pixels of 4:2:0's minimum coded unit: 2x2 blocks of Y, one each of Cb, Cr."""

TABLES = torch.tensor(
    [
        [  # luminance, table K.1
            [16, 11, 10, 16, 24, 40, 51, 61],
            [12, 12, 14, 19, 26, 58, 60, 55],
            [14, 13, 16, 24, 40, 57, 69, 56],
            [14, 17, 22, 29, 51, 87, 80, 62],
            [18, 22, 37, 56, 68, 109, 103, 77],
            [24, 35, 55, 64, 81, 104, 113, 92],
            [49, 64, 78, 87, 103, 121, 120, 101],
            [72, 92, 95, 98, 112, 100, 103, 99],
        ],
        [  # chrominance, table K.2
            [17, 18, 24, 47, 99, 99, 99, 99],
            [18, 21, 26, 66, 99, 99, 99, 99],
            [24, 26, 56, 99, 99, 99, 99, 99],
            [47, 66, 99, 99, 99, 99, 99, 99],
            [99, 99, 99, 99, 99, 99, 99, 99],
            [99, 99, 99, 99, 99, 99, 99, 99],
            [99, 99, 99, 99, 99, 99, 99, 99],
            [99, 99, 99, 99, 99, 99, 99, 99],
        ],
    ]
)
"""Steps of quantisation at quality 50, a row for each vertical frequency."""

# libjpeg's integers (jfdctint.c), not cosines rounded: with those, rounding before quantisation
# goes the other way now and then, and each time a whole block changes.
DCT = (
    torch.tensor(
        [
            [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192],
            [11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363],
            [10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703],
            [9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633],
            [8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192],
            [6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437],
            [4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433],
            [2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260],
        ]
    ).double()
    / 2**13
)
"""The DCT of eight samples, a row for each frequency, in units of the square root of 1/8."""


def jpeg(images: Tensor, qualities: Tensor, offsets: Tensor) -> Tensor:
    """Save a batch as JPEG and read it again, as Pillow does by default: baseline, 4:2:0.

    To the bit on every device, except that a GPU smooths the chroma of images up to 4 pixels wide,
    which libjpeg does not.

    Args:
        images: ``(B, 3, H, W)`` RGB, float, in [0, 255]; left as it is. Rounded to whole grey
            levels first.
        qualities: ``(B,)`` whole numbers from 1 to 100, in the IJG's scale, on any device.
        offsets: ``(B, 2)`` whole numbers from 0 to 15, on any device: so many rows and columns of
            the grid's first blocks lie outside the image, which is thus a crop of a larger JPEG;
            there its edge is repeated. To 15 and not 7, because the grid of chroma has a period of
            16 pixels.

    Returns:
        New tensor of the same shape, dtype and memory layout, whole grey levels in [0, 255].
        What becomes of an image does not depend on the others.

    Raises:
        ValueError: if a quality or an offset is out of range.
    """
    if ((qualities < 1) | (qualities > 100)).any():
        raise ValueError(f"qualities must be in [1, 100], not {qualities.tolist()}")
    if ((offsets < 0) | (offsets >= MCU)).any():
        raise ValueError(f"offsets must be in [0, {MCU - 1}], not {offsets.tolist()}")
    levels = images.float().round().clamp(0, 255)
    # On a CPU libjpeg takes a tenth of the tensors' time.
    coded = by_libjpeg if images.device.type == "cpu" else by_tensors
    # In the images' dtype and memory layout.
    return torch.empty_like(images).copy_(coded(levels, qualities, offsets))


def by_libjpeg(levels: Tensor, qualities: Tensor, offsets: Tensor) -> Tensor:
    """`jpeg` of whole grey levels on the CPU, by Pillow's encoder and simplejpeg's decoder.

    simplejpeg's encoder has a coarser DCT; its decoder gives Pillow's pixels in a third of the
    time.
    """
    results = np.empty((len(levels), *levels.shape[2:], 3), np.uint8)
    pixels = levels.byte().permute(0, 2, 3, 1).numpy()
    places = zip(qualities.tolist(), offsets.tolist(), strict=True)
    for image, (quality, (top, left)), result in zip(pixels, places, results, strict=True):
        file = io.BytesIO()
        placed = np.pad(image, ((top, 0), (left, 0), (0, 0)), "edge")
        Image.fromarray(placed).save(file, "jpeg", quality=quality)
        result[:] = simplejpeg.decode_jpeg(file.getvalue())[top:, left:]
    return torch.from_numpy(results).permute(0, 3, 1, 2)


def by_tensors(levels: Tensor, qualities: Tensor, offsets: Tensor) -> Tensor:
    """`jpeg` of whole grey levels on any device."""
    height, width = levels.shape[2:]
    device = levels.device
    # One canvas for all offsets, of whole MCUs: coordinates that broadcast to (B, 1, h, w).
    rows, columns = (
        torch.arange(-(-(side + MCU - 1) // MCU) * MCU, device=device) for side in (height, width)
    )
    rows = rows[:, None]
    top, left = offsets.to(device).view(-1, 2, 1, 1, 1).unbind(1)
    placed = _at(levels, (rows - top).clamp(0, height - 1), (columns - left).clamp(0, width - 1))
    tables = _tables(qualities.to(device))
    ycc = _to_ycc(placed)
    # Below the image libjpeg repeats the last row of chroma, not of pixels; and before it
    # enlarges chroma, it repeats the last row and column that hold a part of the image.
    chroma_rows = rows[: len(rows) // 2].minimum((height + top + 1) // 2 - 1)
    chroma_columns = columns[: len(columns) // 2].minimum((width + left + 1) // 2 - 1)
    chroma = _at(_halved(ycc[:, 1:]), chroma_rows, columns[: len(columns) // 2])
    chroma = _at(_coded(chroma, tables[:, 1:]), chroma_rows, chroma_columns)
    decoded = _to_rgb(_coded(ycc[:, :1], tables[:, :1]), _doubled(chroma))
    return _at(decoded, rows[:height] + top, columns[:width] + left)


def _at(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The samples at each image's own rows, ``(B, 1, h, 1)``, and columns, ``(B, 1, 1, w)``."""
    count, channels, _, width = planes.shape
    # Not take_along_dim, nor an index: they take twice and four times as long.
    planes = planes.gather(2, rows.expand(count, channels, -1, width))
    return planes.gather(3, columns.expand(count, channels, planes.shape[2], -1))


def _tables(qualities: Tensor) -> Tensor:
    """Steps of quantisation of luma and chroma, ``(B, 2, 8, 8)``, by the IJG's scaling."""
    percent = torch.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    tables = (TABLES.to(qualities.device) * percent[:, None, None, None] + 50) // 100
    return tables.clamp(1, 255).float()


def _to_ycc(rgb: Tensor) -> Tensor:
    """RGB to YCbCr, whole numbers, in libjpeg's 16 bits after the point: exact in float32."""
    red, green, blue = rgb.unbind(1)
    luma = (19595 * red + 38470 * green + 7471 * blue) / 2**16
    cb = (-11059 * red - 21709 * green + 32768 * blue) / 2**16
    cr = (32768 * red - 27439 * green - 5329 * blue) / 2**16
    # Halves of luma up, those of chroma down.
    return torch.stack([(luma + 0.5).floor(), (cb - 0.5).ceil() + 128, (cr - 0.5).ceil() + 128], 1)


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Luma and chroma, whole numbers, to RGB, ``(B, 3, h, w)``, as `_to_ycc`."""
    cb, cr = (chroma - 128).unbind(1)
    red, green, blue = 91881 * cr, -22554 * cb - 46802 * cr, 116130 * cb
    return (luma + (torch.stack([red, green, blue], dim=1) / 2**16 + 0.5).floor()).clamp(0, 255)


def _halved(planes: Tensor) -> Tensor:
    """Means of 2x2 samples, whole numbers: halves down in even columns and up in odd ones."""
    rows = planes[:, :, ::2] + planes[:, :, 1::2]
    sums = rows[..., ::2] + rows[..., 1::2]
    bias = 1 + torch.arange(sums.shape[3], device=planes.device) % 2
    return ((sums + bias) / 4).floor()


def _doubled(planes: Tensor) -> Tensor:
    """Twice as many rows and columns: of the four nearest samples, 9, 3, 3 and 1 sixteenths."""
    edged = nn.functional.pad(planes, (1, 1, 1, 1), mode="replicate")
    above, here, below = edged[:, :, :-2], edged[:, :, 1:-1], edged[:, :, 2:]
    tall = torch.stack([3 * here + above, 3 * here + below], dim=3).flatten(2, 3)
    left, here, right = tall[..., :-2], tall[..., 1:-1], tall[..., 2:]
    # Halves up in even columns and down in odd ones.
    wide = torch.stack([3 * here + left + 8, 3 * here + right + 7], dim=4).flatten(3, 4)
    return (wide / 16).floor()


def _coded(planes: Tensor, tables: Tensor) -> Tensor:
    """What quantisation leaves of planes of whole blocks, ``(B, C, h, w)``.

    Args:
        planes: whole numbers in [0, 255].
        tables: ``(B, 1, 8, 8)``, the steps.
    """
    dct = DCT.to(planes.device)
    # Between the two passes, there and back, libjpeg rounds to quarters. Both passes of a DCT
    # that counts in units of the square root of 1/8 count in eighths.
    rows = _transformed(planes - 128, 4 * dct.T)
    coefficients = _transformed(rows.mT, dct.T / 4).mT
    steps = 8 * tables.repeat(1, 1, planes.shape[2] // 8, planes.shape[3] // 8)
    # Halves away from zero.
    levels = coefficients.sign() * (coefficients.abs() / steps + 0.5).floor()
    columns = _transformed((levels * steps).mT, dct / 2).mT
    return (_transformed(columns, dct / 32) + 128).clamp(0, 255)


def _transformed(planes: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each eight samples of a row with a matrix, and round, halves up.

    In float64, and so exact: of float32 training lets GPUs leave out digits (TF32), and autocast
    more.
    """
    eights = planes.view(*planes.shape[:3], planes.shape[3] // 8, 8)
    return (eights.double() @ matrix).add_(0.5).floor_().flatten(3).float()
