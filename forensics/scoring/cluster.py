"""Scoring on the machines of a Ray cluster, from and to any file system, into a folder of parquet.

The images are divided into partitions, the same ones every time. A task scores one partition and
writes its file at once, under a name that is the partition's number, so that a task that is
repeated because a machine was lost writes the same file again, and a run is resumed by the files
that are missing. Images are read by the process that scores them, not by tasks of their own: only
names, and never pixels, pass between machines.
"""

import hashlib
import io
import json
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from forensics.compute import in_order
from forensics.data.ingest.parquet import image_column
from forensics.detectors import Detector
from forensics.detectors.card import DetectorCard
from forensics.errors import UserError
from forensics.images.containers import RejectedImage
from forensics.images.listing import as_text, unwanted
from forensics.progress import Progress
from forensics.scoring.gather import Gathered
from forensics.scoring.images import ImageLike
from forensics.scoring.predictor import Predictor
from forensics.scoring.tables import SCHEMA

PARTITION_IMAGES = 4096
"""Images in a partition: seconds of a machine's work, lost at most when it fails."""

_RECORD = "_begun.json"
_OF_ARROW = ("file", "s3", "gs", "gcs", "hdfs")
_ATTEMPTS = 3
_FOOTERS_AT_ONCE = 64
_ROWS_AT_ONCE = 32
_PARTITION = pa.schema(
    [
        pa.field("number", pa.int64()),
        pa.field("names", pa.list_(pa.binary())),  # names of files may be no UTF-8
        pa.field("refused", pa.list_(pa.string())),
        pa.field("groups", pa.list_(pa.int32())),
        pa.field("first", pa.int64()),
        pa.field("images", pa.int64()),
    ]
)


class Partition(NamedTuple):
    """The images of one task and one file of the output.

    Attributes:
        number: its place in the order of all images.
        names: the image files; or one parquet file with images.
        refused: for each name, the reason why it gets an error without being opened, or "".
        groups: the row groups to score of a parquet file; empty for image files.
        first: number of the first row of ``groups`` in the file.
        images: number of images.
    """

    number: int
    names: list[str]
    refused: list[str]
    groups: list[int]
    first: int
    images: int


def place(name: str, folder: str = "") -> tuple[fs.FileSystem, str]:
    """The file system of a file or folder, and its path there.

    Args:
        name: a local path; or a URI, of S3, Google's storage or HDFS by Arrow, or of any file
            system of fsspec that is installed.
        folder: what a local path is relative to; by default the working folder.

    Raises:
        UserError: if the URI's file system is unknown or not installed.
    """
    scheme, separator, rest = name.partition("://")
    if not separator:
        return fs.LocalFileSystem(), os.path.abspath(os.path.join(folder, name))
    host, _, path = rest.partition("/")
    system, base = _system(scheme, host)
    return system, f"{base.rstrip('/')}/{path}".rstrip("/") or "/"


@lru_cache
def _system(scheme: str, host: str) -> tuple[fs.FileSystem, str]:
    """A file system and the path of its host or bucket; opening one may need a request."""
    root = f"{scheme}://{host}/"
    try:
        if scheme in _OF_ARROW:
            return fs.FileSystem.from_uri(root)
        from fsspec.core import url_to_fs

        system, path = url_to_fs(root)
        return fs.PyFileSystem(fs.FSSpecHandler(system)), path  # type: ignore[abstract]
    except (ImportError, ValueError, OSError) as error:
        raise UserError(
            f"{as_text(root)} cannot be opened ({error}): correct it, or install the package of "
            "its file system.",
            key=root,
        ) from error


def expanded(gathered: Gathered, inputs: Iterable[str]) -> Gathered:
    """Replace URIs of folders by the files below them.

    Args:
        gathered: by `forensics.scoring.gather.gather`, which leaves URIs as they are.
        inputs: the names given by the user; URIs in lists are files, so that a list of millions
            needs no request for each.

    Raises:
        UserError: if a URI's file system is unknown, or a folder has no file.
    """
    remote = {name for name in inputs if "://" in name}
    found = gathered._replace(paths=[], passed_over=Counter(gathered.passed_over))
    for name in gathered.paths:
        if name not in remote:
            found.paths.append(name)
            continue
        system, path = place(name)
        if system.get_file_info(path).type is not fs.FileType.Directory:
            found.paths.append(name)
            continue
        below = []
        for info in system.get_file_info(fs.FileSelector(path, recursive=True)):
            relative = info.path[len(path) :].strip("/")
            reason = next(filter(None, map(unwanted, relative.split("/"))), "")
            if info.type is fs.FileType.File and reason:
                found.passed_over[reason] += 1
            elif info.type is fs.FileType.File:
                below.append(f"{name.rstrip('/')}/{relative}")
        if not below:
            raise UserError(f"{as_text(name)} has no file: name another folder.", key=name)
        found.paths.extend(sorted(below))
    return found


def partitions(paths: Sequence[str], refused: Mapping[str, str]) -> Iterator[Partition]:
    """Divide images into partitions, in the order given.

    A parquet file, by its suffix, has partitions of its own, of whole row groups. Only its footer
    is read here. If that fails, the file gets a row with the error.
    """
    number, names, reasons = 0, list[str](), list[str]()

    def footer(name: str) -> list[int] | str:
        """Rows of each row group; the reason if there are none."""
        try:
            system, path = place(name)
            with system.open_input_file(path) as file, pq.ParquetFile(file) as table:
                image_column(name, table.schema_arrow)
                groups = range(table.num_row_groups)
                return [table.metadata.row_group(group).num_rows for group in groups]
        except (UserError, OSError, pa.ArrowException) as error:
            return " ".join(str(error).split())

    def is_table(name: str) -> bool:
        return name.endswith(".parquet") and name not in refused

    footers = in_order(footer, filter(is_table, paths), _FOOTERS_AT_ONCE)
    for name in paths:
        rows = next(footers) if is_table(name) else refused.get(name, "")
        if names and (not isinstance(rows, str) or len(names) == PARTITION_IMAGES):
            yield Partition(number, names, reasons, [], 0, len(names))
            number, names, reasons = number + 1, [], []
        if isinstance(rows, str):
            names.append(name)
            reasons.append(rows)
            continue
        groups, first, count = list[int](), 0, 0
        for group, of_group in enumerate(rows):
            groups.append(group)
            count += of_group
            if count >= PARTITION_IMAGES or group == len(rows) - 1:
                yield Partition(number, [name], [""], groups, first, count)
                number, groups, first, count = number + 1, [], first + count, 0
    if names:
        yield Partition(number, names, reasons, [], 0, len(names))


class PartitionScorer:
    """A detector in a process of the cluster, which scores partitions into files.

    Args:
        detector: the detector, on the CPU.
        card: metadata of its file.
        sha256: sha256 of its weights.
        output: folder of the files.
        folder: what local paths are relative to.
    """

    def __init__(
        self, detector: Detector, card: DetectorCard, sha256: str, output: str, folder: str
    ) -> None:
        self._predictor = Predictor(detector, card, sha256)
        self._output, self._folder = output, folder

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score partitions of the schema of `as_table`; returns the number of images of each."""
        counts = [self.score(_from_row(row)) for row in batch.to_pylist()]
        return pa.table({"images": pa.array(counts, pa.int64())})

    def score(self, partition: Partition) -> int:
        """Score a partition into its file; returns its number of images."""
        names: list[str] = []

        def images() -> Iterator[ImageLike]:
            for name, image in self._images(partition):
                names.append(name)
                yield image

        predictions = list(self._predictor.stream(images()))
        rows = [
            {"path": as_text(name)} | prediction._asdict()
            for name, prediction in zip(names, predictions, strict=True)
        ]
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), content)
        _write(*place(_file(self._output, partition.number), self._folder), content.getvalue())
        return len(rows)

    def _images(self, partition: Partition) -> Iterator[tuple[str, ImageLike]]:
        if partition.groups:
            yield from self._of_parquet(partition)
            return
        for name, reason in zip(partition.names, partition.refused, strict=True):
            if reason:
                yield name, cast(BinaryIO, _Refused(reason))
            elif "://" in name:
                yield name, cast(BinaryIO, _Remote(name))
            else:
                yield name, os.path.join(self._folder, name)

    def _of_parquet(self, partition: Partition) -> Iterator[tuple[str, ImageLike]]:
        (name,), row = partition.names, partition.first
        system, path = place(name, self._folder)
        with system.open_input_file(path) as file, pq.ParquetFile(file) as table:
            column = image_column(name, table.schema_arrow)
            for group in partition.groups:  # one at a time, because Arrow reads all it is given
                batches = table.iter_batches(_ROWS_AT_ONCE, [group], [column])
                for value in (value for batch in batches for value in batch.column(0).to_pylist()):
                    content = value["bytes"] if isinstance(value, dict) else value
                    missing = cast(BinaryIO, _Refused("no bytes"))
                    yield f"{name}, row {row}", missing if content is None else content
                    row += 1


class _Refused:
    """A file that is not opened."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def read(self, size: int) -> bytes:
        raise RejectedImage(self._reason)


class _Remote:
    """A file that is opened when it is read, by one of the threads that decode."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, size: int) -> bytes:
        system, path = place(self._name)
        with system.open_input_stream(path) as file:
            return bytes(file.read(size))


def predict_on_ray(
    predictor: Predictor,
    gathered: Gathered,
    output: str,
    *,
    resume: bool,
    overwrite: bool = False,
) -> Counter[str]:
    """Score images on all machines of a Ray cluster.

    The cluster is that of ``RAY_ADDRESS``, or one that runs on this machine, or else this machine.
    Each machine has one process with the detector, or one for each GPU.

    Args:
        predictor: the detector.
        gathered: the images, URIs of folders replaced by `expanded`.
        output: the folder of the output, ``000000.parquet`` and so on in the order of the images;
            a local path must be on a file system that all machines share.
        resume: score only the partitions of an interrupted run that have no file.
        overwrite: replace the files of a former run.

    Returns:
        Number of images by verdict, and of ``error``.

    Raises:
        UserError: if Ray is not installed; if the output is not a folder, is not empty or is of
            another run; or if the cluster lost a partition several times.
        KeyboardInterrupt: after an interruption, with the remedy.
    """
    # It would report each use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise UserError(
            "--engine ray needs Ray: pip install -c constraints.txt '.[ray]'.", key="--engine"
        ) from error
    system, folder = place(output)
    todo = list(partitions(gathered.paths, gathered.refused))
    _begin(system, folder, output, predictor, todo, resume=resume, overwrite=overwrite)
    written = {info.base_name for info in system.get_file_info(fs.FileSelector(folder))}
    for name in written:
        if name.startswith("."):  # of a process that was killed
            system.delete_file(f"{folder}/{name}")
    missing = [one for one in todo if _file("", one.number) not in written]
    begun_here = not ray.is_initialized()
    if begun_here:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        with Progress("score", sum(one.images for one in missing)) as progress:
            for images in _scored(predictor, missing, output):
                progress.advance(images)
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise cause from error
        raise UserError(
            f"The cluster could not score all images ({str(error).splitlines()[-1]}): those "
            f"finished are kept in {as_text(output)}. Repeat the command with --resume."
        ) from error
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"Stopped: the scores so far are kept in {as_text(output)}. Repeat the command with "
            "--resume."
        ) from stop
    finally:
        if begun_here:
            ray.shutdown()
    counts: Counter[str] = Counter()
    files = [f"{folder}/{_file('', one.number)}" for one in todo]
    for batch in ds.dataset(files, SCHEMA, "parquet", system).to_batches(columns=["verdict"]):
        counts.update(str(verdict or "error") for verdict in batch.column(0).to_pylist())
    return counts


def _scored(predictor: Predictor, missing: Sequence[Partition], output: str) -> Iterator[int]:
    """Score partitions on the cluster; yields the number of images of each as it is finished."""
    import ray
    import ray.data

    if not missing:
        return
    gpus = int(ray.cluster_resources().get("GPU", 0))
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [resources["CPU"] for resources in machines if "CPU" in resources]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    detector = predictor.scorer.detector.to("cpu")
    images = ray.data.from_arrow([as_table(one) for one in missing]).map_batches(
        PartitionScorer,
        fn_constructor_args=(detector, predictor.card, predictor.sha256, output, os.getcwd()),
        batch_size=1,
        batch_format="pyarrow",
        concurrency=min(len(missing), gpus or len(cores)),
        # A process uses all cores, so that no machine can have two.
        num_gpus=1 if gpus else None,
        num_cpus=None if gpus else min(cores),
        scheduling_strategy="SPREAD",
        max_task_retries=_ATTEMPTS,
    )
    for row in images.iter_rows():
        yield int(row["images"])


def as_table(partition: Partition) -> pa.Table:
    """A table of one row, to be sent to a `PartitionScorer`."""
    names = [os.fsencode(name) for name in partition.names]
    return pa.Table.from_pylist([partition._asdict() | {"names": names}], _PARTITION)


def _from_row(row: dict[str, Any]) -> Partition:
    return Partition(**row | {"names": [os.fsdecode(name) for name in row["names"]]})


def _file(output: str, number: int) -> str:
    return os.path.join(output, f"{number:06d}.parquet")


def _begin(
    system: fs.FileSystem,
    folder: str,
    output: str,
    predictor: Predictor,
    all_: Sequence[Partition],
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Claim the output folder, or check that it is of the same run."""
    digest = hashlib.sha256()
    for partition in all_:
        digest.update(repr(partition).encode("utf-8", "backslashreplace"))
    begun = {
        "detector": predictor.sha256,
        "partitions": digest.hexdigest(),
        "all_checks": predictor.card.calibration.largest_changes is None,
    }
    said, record = as_text(output), f"{folder}/{_RECORD}"
    state = system.get_file_info(folder).type
    if state is fs.FileType.File or folder.endswith((".csv", ".jsonl")):
        raise UserError(
            f"With --engine ray the output is a folder of parquet files: {said} names a file.",
            key="--output",
        )
    if state is fs.FileType.NotFound:
        system.create_dir(folder, recursive=True)
    if system.get_file_info(record).type is fs.FileType.NotFound:
        if system.get_file_info(fs.FileSelector(folder)):
            raise UserError(
                f"{said} is not empty and has no scores: name another folder.", key="--output"
            )
    elif resume:
        with system.open_input_stream(record) as file:
            former = json.loads(file.read())
        if former != begun:
            raise UserError(
                f"{said} was begun with other images, another detector or another --all-checks: "
                "name the same, or start again with --overwrite instead of --resume.",
                key="--output",
            )
        return
    elif overwrite:
        system.delete_dir_contents(folder)
    else:
        raise UserError(
            f"{said} has scores already: add --overwrite to replace them, --resume to finish an "
            "interrupted run, or name another folder.",
            key="--output",
        )
    _write(system, record, json.dumps(begun).encode())


def _write(system: fs.FileSystem, path: str, content: bytes) -> None:
    """Write a file that is either complete or absent, whoever else writes it."""
    folder, _, name = path.rpartition("/")
    # Hidden: readers of a folder of parquet ignore it.
    unfinished = f"{folder}/.{name}.{uuid.uuid4().hex}"
    with system.open_output_stream(unfinished) as file:
        file.write(content)
    system.move(unfinished, path)
