"""Audit of the images: shortcuts between the classes, duplicates and near-duplicates.

Good scores show nothing about a detector where the file format, the border or an 8x8 thumbnail
already separates the classes. Each check has a limit, and a verdict by that limit.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forensics.data.codec import quality_of
from forensics.data.datamodule import FaceData
from forensics.data.opening import open_sources
from forensics.data.repetitions import repetitions
from forensics.data.sources import Preparation, Source
from forensics.errors import UserError
from forensics.evaluation.shortcuts import PROBES, separability
from forensics.generators.collapse import Images, Undefined
from forensics.images.duplicates import NearDuplicates
from forensics.images.geometry import Match, ResizeFilter
from forensics.images.metadata import Metadata, read_metadata
from forensics.training.settings import AuditMode

Rows = NDArray[np.int64]
Features = NDArray[Any]

MAX_AUROC = 0.9
MAX_SHARE_WITHIN = 0.01

IMAGES_BEFORE_TRAINING = 300
"""Images of each source compared before a training, which takes a few seconds. An AUROC of 0.5 then
has a standard error of 0.024, a higher one less."""

PREPARATION = Preparation(128, ResizeFilter.lanczos, min_side=128, max_rejected_share=1.0)
"""As in ``conf/dataset/paper.yaml``, except for the permitted share of rejected files."""

PAPER_COUNT = 10_000

MATCHED: dict[Match, tuple[str, ...]] = {
    Match.none: (),
    Match.jpeg: ("format", "jpeg_quality"),
    Match.resample: ("size",),
    Match.codec: (),  # traits are measured of the files as they were saved again
}
"""Traits of files that matching equalises; they cause no warnings. Their remains in the pixels
are covered by the traits of pixels, which are measured after matching."""

_FORMATS = ("JPEG", "PNG", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I", "I;16")


class Audited(NamedTuple):
    """A source and the roles of its images in an audit.

    Attributes:
        source: its prepared images.
        folder: folder of its files.
        real: whether its images are real.
        compared: rows from which images are drawn for the comparison of the classes.
        fitted: rows for training or validation.
        tested: rows for the test.
    """

    source: Source
    folder: Path
    real: bool
    compared: Rows
    fitted: Rows
    tested: Rows


def audit_run(data: FaceData, mode: AuditMode, seed: int) -> dict[str, Any] | None:
    """Audit the images of a run before training, in seconds.

    Traits are measured on a sample of the training images, for each generator against the real
    sources that it is compared with; near-duplicates are searched in all images.

    Args:
        data: the data module, set up.
        mode: whether to audit, and whether a warning ends the run.
        seed: decides which images are compared.

    Returns:
        As `audit`, or None if the mode is ``off``.

    Raises:
        UserError: if the mode is ``fail`` and there is a warning, or if a source has no folder.
    """
    if mode is AuditMode.off:
        return None
    for name in data.settings.names:
        if not (folder := data.settings.folder(name)).is_dir():  # its prepared images are elsewhere
            raise UserError(
                f"The audit reads the files of {name}, and there is no folder {folder}: add "
                "audit=off.",
                key="audit",
            )

    def rows(position: int, *parts: str) -> Rows:
        found = (getattr(data.split, part) for part in parts)
        return np.concatenate([part.of_source(position) for part in found])

    sources = [
        Audited(
            source,
            data.settings.folder(source.name),
            source.name in data.settings.all_real,
            rows(position, "train"),
            rows(position, "train", "validation"),
            rows(position, "test"),
        )
        for position, source in enumerate(data.sources)
    ]
    repeated = repetitions(data.sources)
    settings = data.settings
    audited = audit(
        sources, repeated, IMAGES_BEFORE_TRAINING, seed, settings.match, settings.compared
    )
    if mode is AuditMode.fail and audited["warnings"]:
        raise UserError(
            f"The audit has {len(audited['warnings'])} warnings, the first: "
            f"{audited['warnings'][0].rstrip('.')}; fix the images, or train on them anyway with "
            "audit=warn."
        )
    return audited


def audit_folders(
    root: Path, real: Sequence[str], generated: Sequence[str], cache_dir: Path | str
) -> list[Audited]:
    """Open sources for an audit, with the roles of images in the paper's protocol.

    Args:
        root: folder with one folder for each source.
        real: names of the sources of real images.
        generated: names of the sources of generated images.
        cache_dir: folder of prepared images, or a URI of object storage.

    Raises:
        UserError: if a source is named twice or its folder is missing or unusable.
    """
    names = [*real, *generated]
    folders = {name: root / name for name in names}
    for name, folder in folders.items():
        if names.count(name) > 1 or Path(name).name != name or not folder.is_dir():
            raise UserError(
                f"{name!r} cannot be audited: name each folder below {root} once, with --real or "
                "--generated."
            )
    found = []
    for source in open_sources(folders, PREPARATION, cache_dir):
        name, folder = source.name, folders[source.name]
        tested = min(PAPER_COUNT, len(source) // 2)
        everything = np.arange(len(source))
        found.append(
            Audited(
                source,
                folder,
                name in real,
                everything,
                everything[: len(source) - tested][:PAPER_COUNT],
                everything[len(source) - tested :],
            )
        )
    return found


def audit(
    sources: Sequence[Audited],
    repeated: tuple[NearDuplicates, list[Rows]],
    images: int,
    seed: int,
    match: Match = Match.none,
    compared: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Find shortcuts, duplicates and near-duplicates.

    Args:
        sources: sources of both classes, of one image size.
        repeated: the result of `repetitions` for them.
        images: largest number of images of each source whose traits are compared.
        seed: decides the compared images, and the folds.
        match: the processing already applied to the sources' rows.
        compared: by generator, the real sources that it is compared with, as in the test; all of
            them for a generator that is missing here or whose own have no images to compare.

    Returns:
        Ready for JSON. ``traits``: for each pair of a generator and a real source, how well each
        trait alone separates them, as cross-validated AUROC of a logistic model; a warning from
        `MAX_AUROC` on, except for traits of `MATCHED`. Real sources are not pooled: a trait of one
        of them would be diluted by the others. ``repetitions``: for each pair
        of sources, the number of images of either with a near-duplicate in the other; a warning
        for any between classes, and beyond `MAX_SHARE_WITHIN` within a class, except for sources
        of images made from others. ``across_border``: for each source, the number of training and
        validation images with a near-duplicate among test images; a warning for any.
        ``warnings``: one sentence each.
    """
    draws = np.random.default_rng(seed)
    pairs, groups = repeated
    result: dict[str, Any] = {
        "seed": seed,
        "images": {
            audited.source.name: {
                "real": audited.real,
                "all": len(audited.source),
                "fitted": len(audited.fitted),
                "tested": len(audited.tested),
            }
            for audited in sources
        },
        "traits": _traits(sources, images, draws, seed, MATCHED[match], compared),
        "repetitions": _repetitions(sources, groups),
        "mirrored_pairs": int(pairs.mirrored.sum()),
        "across_border": _across_border(sources, groups),
    }
    checks = (*result["traits"], *result["repetitions"], *result["across_border"])
    result["warnings"] = [check["says"] for check in checks if check["verdict"] == "warning"]
    return result


def _traits(
    sources: Sequence[Audited],
    images: int,
    draws: np.random.Generator,
    seed: int,
    alike: Sequence[str],
    compared: Mapping[str, Collection[str]],
) -> list[dict[str, Any]]:
    some = [audited for audited in sources if len(audited.compared)]
    reals = {one.source.name: _features(one, images, draws) for one in some if one.real}
    checks = []
    for one in some:
        if one.real:
            continue
        generator, of_generated = one.source.name, _features(one, images, draws)
        own = [name for name in reals if name in compared.get(generator, reals)]
        for name in own or reals:
            for trait, generated in of_generated.items():
                check = _trait(trait, name, reals[name][trait], generator, generated, seed)
                if trait in alike and check["auroc"] is not None:
                    check["verdict"] = "matched"
                checks.append(check)
    return checks


def _trait(
    trait: str, real: str, of_real: Features, generator: str, of_generated: Features, seed: int
) -> dict[str, Any]:
    """How well a trait alone separates a generator from a real source."""
    check: dict[str, Any] = {
        "trait": trait,
        "real": real,
        "generator": generator,
        "n_real": len(of_real),
        "n_generated": len(of_generated),
        "limit": MAX_AUROC,
    }
    if trait in _OF_FILES:
        both = _with_squares(np.concatenate([of_real, of_generated]))
        of_real, of_generated = both[: len(of_real)], both[len(of_real) :]
    try:
        auroc = separability(of_real, of_generated, seed)
    except Undefined as error:
        return check | {"auroc": None, "verdict": "not measured", "says": str(error)}
    return check | {
        "auroc": auroc,
        "verdict": "warning" if auroc >= MAX_AUROC else "ok",
        "says": f"{generator} can be told from {real} by {TRAITS[trait]} alone (AUROC {auroc:.3f}):"
        " a detector may learn this shortcut.",
    }


def _features(audited: Audited, images: int, draws: np.random.Generator) -> dict[str, Features]:
    """All traits of some images of a source, ``(k, F)`` each."""
    rows = np.sort(draws.permutation(audited.compared)[:images])
    pixels = audited.source.rows[rows]
    files = [_metadata(audited, row) for row in rows]
    of_files = {trait: features(files) for trait, features in _OF_FILES.items()}
    return of_files | {trait: features(pixels) for trait, features in _OF_PIXELS.items()}


def _metadata(audited: Audited, row: int) -> Metadata:
    """Metadata of an image's file, as saved with the real images' codec if it was."""
    source = audited.source
    metadata = read_metadata(audited.folder / source.paths[row])
    if not source.qualities:
        return metadata
    quality = quality_of(source.sha256[row], source.qualities)
    return metadata._replace(format="JPEG", mode="RGB", jpeg_quality=quality)


def _one_hot(values: Sequence[str], known: Sequence[str]) -> Features:
    return np.array([[value == option for option in known] for value in values], float)


def _with_squares(features: Features) -> Features:
    """Centred features and their squares, for a class whose values lie between the other's."""
    apart = features - features.mean(axis=0)
    return np.concatenate([apart, apart**2], axis=1)


def _format(files: Sequence[Metadata]) -> Features:
    of_format = _one_hot([file.format for file in files], _FORMATS)
    return np.concatenate([of_format, _one_hot([file.mode for file in files], _MODES)], axis=1)


def _size(files: Sequence[Metadata]) -> Features:
    return np.log([[file.width, file.height] for file in files])


def _aspect(files: Sequence[Metadata]) -> Features:
    return np.log([[file.width / file.height] for file in files])


def _jpeg_quality(files: Sequence[Metadata]) -> Features:
    return np.array([[file.jpeg_quality or 0, file.jpeg_quality is None] for file in files])


def _exif(files: Sequence[Metadata]) -> Features:
    return np.array(
        [[file.exif, file.orientation > 1, file.orientation > 4] for file in files], float
    )


def colour_moments(images: Images) -> Features:
    """Mean, standard deviation and third moment of each channel, ``(n, 9)``, in grey levels.

    Computed from a quarter of the pixels.
    """
    found = []
    for image in images[:, ::2, ::2]:
        levels = image.reshape(-1, 3).astype(np.float64)
        mean = levels.mean(axis=0)
        apart = levels - mean
        squares = apart * apart
        third = np.cbrt((squares * apart).mean(axis=0))
        found.append([mean, np.sqrt(squares.mean(axis=0)), third])
    return np.array(found).reshape(len(images), 9)


def resampling_traces(images: Images) -> Features:
    """Periodicity of the difference between neighbouring pixels, ``(n, S)``.

    An interpolated pixel is near the mean of its neighbours, and the positions of interpolated
    pixels depend on the scale factor: after twofold enlargement, every second pixel.

    Args:
        images: ``(n, S, S, 3)`` uint8.

    Returns:
        Log spectrum over position of the mean absolute second difference: along rows, then along
        columns, without frequency 0.

    Source: Gallagher, Detection of linear and cubic interpolation in JPEG compressed images, 2005.
    """
    found = []
    for image in images:
        grey = image.mean(axis=2)
        for turned in (grey, grey.T):
            second = np.abs(np.diff(turned, n=2, axis=1)).mean(axis=0)
            spectrum = np.abs(np.fft.rfft(second / max(second.mean(), 1e-6)))
            found.append(np.log(spectrum[1:] + 1e-3))
    return np.array(found).reshape(len(images), -1)


_OF_FILES: dict[str, Callable[[Sequence[Metadata]], Features]] = {
    "format": _format,
    "size": _size,
    "aspect": _aspect,
    "jpeg_quality": _jpeg_quality,
    "exif": _exif,
}
_OF_PIXELS: dict[str, Callable[[Images], Features]] = {
    "colour": colour_moments,
    **PROBES,
    "resampling": resampling_traces,
}
TRAITS = {
    "format": "file formats",
    "size": "the files' widths and heights",
    "aspect": "the files' aspect ratios",
    "jpeg_quality": "JPEG qualities",
    "exif": "EXIF entries",
    "colour": "mean, spread and skew of the colours",
    "thumbnail": "8x8 thumbnails",
    "border": "gradients along the border",
    "spectrum": "radial spectra",
    "resampling": "traces of resampling",
}
"""Phrases for the traits, for sentences."""


def _repetitions(sources: Sequence[Audited], groups: Sequence[Rows]) -> list[dict[str, Any]]:
    checks = []
    for a, b in combinations_with_replacement(range(len(sources)), 2):
        one, other = sources[a], sources[b]
        names = one.source.name, other.source.name
        copies = _shared(one.source.digests, other.source.digests, a == b)
        near = _shared(groups[a].tolist(), groups[b].tolist(), a == b)
        share = max(near[0] / len(one.source), near[1] / len(other.source))
        limit = MAX_SHARE_WITHIN if one.real == other.real else 0.0
        if one.source.originals or other.source.originals:
            limit = 1.0  # made to show the same; the split keeps them together
        where = f"of {names[0]} have" if a == b else f"of {names[0]} and {near[1]} of {names[1]}"
        checks.append(
            {
                "sources": list(names),
                "copies": list(copies),
                "near_duplicates": list(near),
                "share": share,
                "limit": limit,
                "verdict": "warning" if share > limit else "ok",
                "says": f"{near[0]} images {where} "
                + (
                    f"a near-duplicate in it, {copies[0]} a copy of the same pixels."
                    if a == b
                    else f"show the same images, {copies[0]} and {copies[1]} the same pixels."
                ),
            }
        )
    return checks


def _shared(first: Sequence[Any], second: Sequence[Any], same: bool) -> tuple[int, int]:
    """Numbers of items of either list that occur in the other, or repeatedly in the same list."""
    if same:
        seen: dict[Any, int] = {}
        for key in first:
            seen[key] = seen.get(key, 0) + 1
        count = sum(times for times in seen.values() if times > 1)
        return count, count
    ours, theirs = set(first), set(second)
    return sum(key in theirs for key in first), sum(key in ours for key in second)


def _across_border(sources: Sequence[Audited], groups: Sequence[Rows]) -> list[dict[str, Any]]:
    tested = np.concatenate(
        [of_source[audited.tested] for audited, of_source in zip(sources, groups, strict=True)]
    )
    checks = []
    for audited, of_source in zip(sources, groups, strict=True):
        if not len(audited.fitted):
            continue
        count = int(np.isin(of_source[audited.fitted], tested).sum())
        checks.append(
            {
                "source": audited.source.name,
                "fitted": len(audited.fitted),
                "near_duplicates": count,
                "limit": 0,
                "verdict": "warning" if count else "ok",
                "says": f"{count} of {len(audited.fitted)} training images of "
                f"{audited.source.name} are near-duplicates of test images: "
                "dataset.drop_near_duplicates=true drops them.",
            }
        )
    return checks
