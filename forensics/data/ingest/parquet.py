"""Reading the images of parquet files, of one class by their columns."""

import json
import logging
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from forensics.data.ingest.classes import is_real, part_of
from forensics.data.ingest.items import Item, Items, bounded, damage_told, stats, told, too_large
from forensics.errors import UserError
from forensics.images.listing import as_text

log = logging.getLogger(__name__)

SPLIT = "split"
"""The column with the parts of a split, or the values that the names of files have in its place."""

_ROWS_AT_ONCE = 16
_OF_CLASSES = re.compile(r"label|class|target|fake|real|generated|synthetic|\bai\b", re.IGNORECASE)
_OF_GENERATORS = re.compile("generator|model|source", re.IGNORECASE)
_NUMBER = re.compile(r"-?[\d.]+")
_CLASSES = 2
_NAMED, _SHOWN = 4, 20

Texts = list[str | None]


def from_parquet(
    given: Path, shards: Sequence[Path], label: Sequence[str], beside: Counter[str]
) -> Items:
    """Open parquet files with one column of encoded images.

    Args:
        given: the file or its folder, for messages.
        shards: the files, in order.
        label: chosen values, ``1`` of the column with the classes or ``COLUMN=VALUE`` of any; rows
            have one of the values of each column. All rows are chosen if it is empty.
        beside: files beside them that are passed over, by reason.

    Raises:
        UserError: if there is no such value, both classes meet in the chosen rows, or the files
            are damaged or a decompression bomb.
    """
    with damage_told(given):
        for shard in shards:
            with shard.open("rb") as file:
                metadata = pq.read_metadata(file)
            groups = range(metadata.num_row_groups)
            bounded(shard, sum(metadata.row_group(n).total_byte_size for n in groups))
        columns = label_columns(shards)
        chosen = _choose(given, columns, label)
        count = sum(_length(shard) for shard in shards) if chosen is None else len(chosen)
    position_of = None if chosen is None else {row: rank for rank, row in enumerate(chosen)}

    def each(done: Container[int]) -> Iterator[Item]:
        row = 0
        for shard in shards:
            read = 0
            with shard.open("rb") as file, pq.ParquetFile(file) as table:
                column = image_column(shard, table.schema_arrow)
                for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                    for value in batch.column(0).to_pylist():
                        name, position = f"{as_text(shard.name)}, row {row}", row
                        if position_of is not None:
                            position = position_of.get(row, -1)
                        row += 1
                        if isinstance(value, dict):
                            name, value = value.get("path") or name, value["bytes"]
                        content = value or b""
                        # Pages of a dictionary say nothing of how often its images are repeated.
                        read += len(content)
                        bounded(shard, read)
                        if position >= 0 and position not in done:
                            refused = "no bytes" if value is None else too_large(len(content))
                            yield Item(position, name, b"" if refused else content, refused)

    return Items(count, stats(shards), told(given, each), 1, beside)


def _length(shard: Path) -> int:
    with shard.open("rb") as file:
        return int(pq.read_metadata(file).num_rows)


def image_column(shard: Path | str, schema: pa.Schema) -> str:
    """The column of encoded images: binary, or Hugging Face's struct of bytes and path.

    Raises:
        UserError: if there is not exactly one such column.
    """

    def is_binary(kind: pa.DataType) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = []
    for field in schema:
        kind = field.type
        if isinstance(kind, pa.StructType):
            index = kind.get_field_index("bytes")
            if index >= 0 and is_binary(kind.field(index).type):
                found.append(field.name)
        elif is_binary(kind):
            found.append(field.name)
    if len(found) != 1:
        raise UserError(
            f"{as_text(str(shard))} has {len(found)} columns of encoded images among "
            f"{', '.join(schema.names)}: give one with exactly one, of type binary or a struct "
            "with bytes and path.",
            key=str(shard),
        )
    return found[0]


def label_columns(shards: Sequence[Path]) -> dict[str, Texts]:
    """Values, as text, of the columns that tell classes, generators or parts.

    Their names say so, or, of a column of text, all values are names of classes. Without a column
    `SPLIT`, the names of files or folders give its values if they name several parts, such as
    ``train-00000-of-00002`` and ``test/0000``.
    """
    columns: dict[str, Texts] = {}
    of_any_name: set[str] = set()
    rows = 0
    parts: Texts = []
    for shard in shards:
        with shard.open("rb") as file, pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            for field in schema:
                known = _is_label(field.name, field.type)
                if not known and _begins_with_classes(table, field):
                    known = True
                    of_any_name.add(field.name)
                if known:
                    read = table.read([field.name]).column(0).to_pylist()
                    names = _names(schema, field.name)
                    texts = columns.setdefault(field.name, [])
                    # A column that is missing from a file has no values there.
                    texts += [None] * (rows - len(texts))
                    texts += [_text(value, names) for value in read]
            rows += table.metadata.num_rows
            parts += [_part(shard)] * table.metadata.num_rows
    if len(set(parts)) > 1:
        columns.setdefault(SPLIT, parts)
    return {
        name: texts + [None] * (rows - len(texts))
        for name, texts in columns.items()
        if name not in of_any_name or all(is_real(text) is not None for text in set(texts) if text)
    }


def _part(shard: Path) -> str | None:
    """The part that a file's name means, before its number, or that its folder's name means."""
    return part_of(shard.stem.partition("-")[0]) or part_of(shard.parent.name)


def _is_label(name: str, kind: pa.DataType) -> bool:
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if pa.types.is_dictionary(kind):
        return _is_label(name, kind.value_type)
    words = name.replace("_", " ")
    if text and (_OF_GENERATORS.search(words) or name == SPLIT):
        return True
    return (numeric or text or pa.types.is_boolean(kind)) and bool(_OF_CLASSES.search(words))


def _begins_with_classes(table: pq.ParquetFile, field: "pa.Field[Any]") -> bool:
    """Whether the first values of a column of text are names of classes."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return False
    batches = table.iter_batches(_ROWS_AT_ONCE, columns=[field.name])
    first = next(batches, None)
    values = [] if first is None else first.column(0).to_pylist()
    named = [value for value in values if value is not None]
    return bool(named) and all(is_real(value) is not None for value in named)


def _names(schema: pa.Schema, column: str) -> list[str]:
    """The class names that the Hugging Face hub stores for the numbers of a column, or none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _text(value: Any, names: Sequence[str]) -> str | None:  # noqa: ANN401
    if value is None or isinstance(value, str):
        return value
    number = int(value) if value in (0, 1) or float(value).is_integer() else value
    return names[number] if isinstance(number, int) and 0 <= number < len(names) else str(number)


def _choose(given: Path, columns: Mapping[str, Texts], label: Sequence[str]) -> list[int] | None:
    """Choose the rows with given labels.

    Returns:
        The numbers of the chosen rows; None if all rows are chosen.

    Raises:
        UserError: if a label names no rows or several columns, or both classes meet.
    """
    wanted: dict[str, set[str]] = {}
    for text in label:
        column, value = _column_of(given, columns, text)
        wanted.setdefault(column, set()).add(value)
    rows = None
    if wanted:
        count = len(next(iter(columns.values())))
        rows = [
            row
            for row in range(count)
            if all(_folded(columns[name][row]) in values for name, values in wanted.items())
        ]
        if not rows:
            raise UserError(
                f"{as_text(str(given))} has no row with {' and '.join(label)}: leave one out.",
                key="--label",
            )
    for name, texts in columns.items():
        found = set(texts if rows is None else (texts[row] for row in rows)) - {None}
        present = sorted(text for text in found if text is not None)
        if _are_both_classes(name, present, asked=name in wanted):
            options = " or ".join(f"--label {name}={text}" for text in present[:_NAMED])
            raise UserError(
                f"{as_text(str(given))} has real and generated images by its column {name}, but a "
                f"source has one class: choose with {options}.",
                key=name,
            )
        if rows is None and len(present) > 1 and _OF_CLASSES.search(name):
            log.info(
                "%s: images of every %s are taken, %s%s; --label chooses",
                as_text(str(given)),
                name,
                as_text(", ".join(present[:_NAMED])),
                " and more" * (len(present) > _NAMED),
            )
    return rows


def _column_of(given: Path, columns: Mapping[str, Texts], text: str) -> tuple[str, str]:
    """Column and folded value of a ``--label``."""
    column, _, value = text.partition("=")
    names = [column] if column in columns else list(columns)
    value = value if column in columns else text
    having = [name for name in names if _folded(value) in map(_folded, set(columns[name]))]
    if len(having) == 1:
        return having[0], str(_folded(value))
    if having:
        raise UserError(
            f"--label {text} is a value of {' and '.join(having)}: say which, as in --label "
            f"{having[0]}={value}.",
            key="--label",
        )
    present = [f"{name}={one}" for name, of in columns.items() for one in sorted({*map(str, of)})]
    there = f"it has {', '.join(present[:_SHOWN])}" if present else "it has no column of labels"
    raise UserError(f"{as_text(str(given))} has no label {text}: {there}.", key="--label")


def _folded(text: str | None) -> str | None:
    return text and text.casefold()


def labelled(texts: Texts) -> dict[str, bool] | None:
    """Whether each value of a column means real images, if its values are of both classes.

    Values that name no class mean generated images if another one names real ones, such as names
    of generators beside «real».

    Returns:
        None if the values are not of both classes, or are numbers, which do not say which is which.
    """
    values = {text for text in texts if text is not None}
    classes = {text: is_real(text) for text in values}
    if True not in classes.values() or len(set(classes.values())) < 2:
        return None
    return {text: class_ is True for text, class_ in classes.items()}


def _are_both_classes(column: str, present: list[str], *, asked: bool) -> bool:
    """Whether values are of both classes.

    Two numbers are, unless the user asked for both; so are a name of a class and any other text,
    such as «real» among names of generators.
    """
    classes = {is_real(text) for text in present}
    if classes & {True, False}:
        return len(classes) > 1
    are_numbers = all(_NUMBER.fullmatch(text) for text in present)
    is_pair = len(present) == _CLASSES and are_numbers
    return is_pair and bool(_OF_CLASSES.search(column)) and not asked
