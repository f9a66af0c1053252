"""The form of the files that a report reads: a folder may be damaged, or come from anywhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from forensics.checks import mismatch, source_name
from forensics.detectors.card import CERTAIN_REAL
from forensics.errors import UserError
from forensics.files import parsed


class Pair(TypedDict):
    """A tested pair."""

    real: str
    generator: str
    seen: bool


class Tested(TypedDict):
    """A tested source."""

    source: str
    real: bool
    n: int


class Result(TypedDict):
    """What reports read of any tested detector's result."""

    toy: bool
    debug: NotRequired[bool]
    thresholds: dict[str, float]
    temperature: float | None
    offset: NotRequired[float | None]
    sources: list[Tested]
    pairs: list[Pair]
    test_hashes: dict[str, str]
    scores_sha256: NotRequired[str]
    warnings: list[str]
    git_commit: str | None
    git_changed: bool | None
    versions: dict[str, str | None]
    device: str
    threads: int


class ValidatedOn(TypedDict):
    """A generator of the validation images."""

    seen: bool
    n: int
    auroc: float


class Validation(TypedDict):
    """Comparison with chance on validation images."""

    chance: bool | None
    auroc: float | None
    interval: list[float] | None
    generators: NotRequired[dict[str, ValidatedOn]]


class Sources(TypedDict):
    """The sources of a run's settings."""

    real: list[str]
    train_on: list[str]


class Settings(TypedDict):
    """A run's settings."""

    seed: int
    max_epochs: int
    batch_size: int
    dataset: Sources


class Images(TypedDict):
    """Counts of a run's images by source."""

    train: dict[str, int]


class Trained(Result):
    """The result of train.py."""

    model: str
    preprocess: str
    settings: Settings
    images: Images
    seconds: dict[str, float]
    validation: NotRequired[Validation]


class Network(TypedDict):
    """The network of an evaluated detector."""

    name: str
    settings: dict[str, Any]


class Input(TypedDict):
    """The input of an evaluated detector."""

    image_size: int
    resize_filter: str
    match: str


class Provenance(TypedDict):
    """The training of an evaluated detector."""

    real: list[str]
    trained_on: list[str]
    preprocess: str
    toy: bool
    seed: int | None


class Evaluated(TypedDict):
    """An evaluated detector."""

    detector: str
    network: Network
    input: Input
    calibration: dict[str, Any]
    provenance: Provenance


class Evaluation(TypedDict):
    """The result of evaluate.py."""

    detectors: list[Evaluated]


class Job(TypedDict):
    """A job of a sweep."""

    folder: str
    overrides: list[str]


class Sweep(TypedDict):
    """The record of a sweep."""

    command: str
    jobs: list[Job]


class Failure(TypedDict):
    """The record of a failed run."""

    error: str


def read(path: Path, kind: type) -> dict[str, Any]:
    """Read a JSON file of one of the forms above.

    Raises:
        UserError: if it is damaged or has another form.
    """
    try:
        content = parsed(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise refused(path, f"cannot be read ({error})") from error
    check(path, content, kind)
    return dict(content)


def check(path: Path, content: object, kind: Any) -> None:  # noqa: ANN401
    """Refuse content that a file of this program does not have."""
    if wrong := mismatch(content, kind, "content"):
        raise refused(path, f"is damaged ({wrong})")


def check_names(path: Path, result: Mapping[str, Any]) -> None:
    """Refuse names of sources and thresholds in a result that this program does not write.

    Sources are folders below one folder; other names could lead to files elsewhere.
    """
    names = {*result["test_hashes"], *result.get("validation", {}).get("generators", {})}
    names |= {pair[key] for pair in result["pairs"] for key in ("real", "generator")}
    names |= {source["source"] for source in result["sources"]}
    for of in (result.get("settings", {}).get("dataset", {}), result.get("provenance", {})):
        names |= {name for key in ("real", "train_on", "trained_on") for name in of.get(key, ())}
    check_sources(path, names)
    if not {"0.5", CERTAIN_REAL} & set(result["thresholds"]):
        raise refused(path, "has no threshold that detectors are compared at")
    for name in result["thresholds"]:
        try:
            is_known = name == "0.5" or 0 < float(name.removeprefix("source_")) < 1
        except ValueError:
            is_known = False
        if not is_known:
            raise refused(path, f"has the threshold {name!r}, which no detector has")
    for source in result["sources"]:
        for name in result["thresholds"]:
            rate = f"tpr_at_{name}"
            if source["real"] and mismatch(source.get(rate), float):
                raise refused(path, f"is damaged: {rate} of {source['source']} is no number")


def check_sources(path: Path, names: set[str]) -> None:
    """Refuse names of sources that are no names of folders."""
    for name in sorted(names):
        try:
            source_name("it", name)
        except UserError as error:
            raise refused(path, f"has {name!r}, which is no name of a source") from error


def refused(path: Path, reason: str) -> UserError:
    """The error for a file that is damaged or not written by this program."""
    return UserError(f"{path} {reason}: leave its folder out, or run it again.", key=str(path))
