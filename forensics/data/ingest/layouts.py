"""Layouts of data sets: where the generated images of each generator and its real ones are.

Found by the names of folders, in any nesting: ``GENERATOR/[CLASS/]{0_real,1_fake}`` (ForenSynths,
GANGen, UniversalFakeDetect), ``GENERATOR/SUB/{train,val}/{ai,nature}`` (GenImage),
``{train,valid,test}/{real,fake}`` (140k, CIFAKE), ``{real,fake}_{train,test}`` (WildDeepfake),
folders of generators alone beside named real images (DF40, Synthbuster), or parquet files with a
column of labels and perhaps one of generators. What can be read in two ways is refused.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from forensics.data.ingest.classes import categories, is_real, parts_on
from forensics.data.ingest.rows import rows_by_label
from forensics.errors import UserError
from forensics.images.listing import MANIFEST, as_text, list_images, walk


@dataclass(frozen=True)
class Images:
    """Images of one class.

    Attributes:
        path: a folder, with all folders below it, or parquet files' folder or file.
        labels: labels of the rows of parquet, as ``forensics prepare --label`` takes them.
        count: number of images.
    """

    path: Path
    labels: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class Compared:
    """The images of one generator, and the real images they are compared with.

    Attributes:
        generator: its name.
        part: train, validation or test, by the data set's own folders; None if it has no such.
        generated: its images, at least one entry.
        real: its real images, at least one entry.
    """

    generator: str
    part: str | None
    generated: tuple[Images, ...]
    real: tuple[Images, ...]


@dataclass(frozen=True)
class Layout:
    """The images of a data set by generator and part, in the order of their names.

    Attributes:
        root: the data set's folder or parquet file.
        compared: one entry for each generator and part.
    """

    root: Path
    compared: tuple[Compared, ...]

    @property
    def is_unnamed(self) -> bool:
        """Whether its only generator has the name of the data set, because no folder names it."""
        return {one.generator for one in self.compared} == {_name(self.root)}

    def __str__(self) -> str:
        """The mapping as text, a line for each generator and part."""
        lines = [f"{as_text(str(self.root))}:"]
        for one in self.compared:
            name = one.generator if one.part is None else f"{one.generator}, {one.part}"
            lines.append(f"  {name}: {self._said(one.generated)}; real {self._said(one.real)}")
        return "\n".join(lines)

    def _said(self, images: Sequence[Images]) -> str:
        first = images[0]
        place = " ".join(first.labels)
        if not place:
            inside = first.path.is_relative_to(self.root)
            place = str(first.path.relative_to(self.root) if inside else first.path)
        more = f" and {len(images) - 1} more folders" if len(images) > 1 else ""
        return f"{sum(one.count for one in images)} in {as_text(place)}{more}"


def find_layout(root: Path, real: Sequence[Path] = ()) -> Layout:
    """Find the layout of a data set.

    Args:
        root: its folder, or a parquet file. The generator is the first folder below it that names
            neither a class nor a part of a split; without one, it has the folder's own name.
        real: folders of real images for the generators that have none of their own.

    Raises:
        UserError: if there are no images, no layout or two of them, folders of unknown classes, a
            generator without real images, or ``real`` that no generator needs.
    """
    if not root.exists():
        raise UserError(f"There is no {as_text(str(root))}: correct dataset.root.", key=str(root))
    shards = [root] if root.is_file() else _shards(root)
    named = [folder.resolve() for folder in real]
    folders = {} if root.is_file() else _folders(root, named)
    if shards and folders:
        raise _refused(
            root, f"has both parquet files ({shards[0].name}) and images ({min(folders)})"
        )
    if shards:
        if real:
            raise _refused(root, "has its own real images, so leave out those that are named")
        return Layout(root, _of_parquet(root, shards))
    if not folders:
        passed_over = ", ".join(list_images(root).passed_over) or "it is empty"
        raise _refused(root, f"has no image below it ({passed_over}): unpack archives first")
    given = tuple(_counted(folder) for folder in real)
    if any(class_ is False for path in folders for class_ in map(is_real, path.split("/"))):
        return Layout(root, _of_class_folders(root, folders, given))
    return Layout(root, _of_generator_folders(root, folders, given))


def _name(root: Path) -> str:
    """Name of the generator that no folder or column names."""
    return root.stem if root.is_file() else root.resolve().name


def _refused(root: Path, why: str) -> UserError:
    return UserError(f"{as_text(str(root))} {why}.", key=str(root))


def _shards(root: Path) -> list[Path]:
    found = (root / path for path, reason, _ in walk(root) if not reason)
    return sorted(
        path for path in found if path.suffix.lower() == ".parquet" and path.name != MANIFEST
    )


def _folders(root: Path, without: Sequence[Path]) -> dict[str, int]:
    """Number of images by the path of their folder, "" for the root, in the order of names."""
    counts = Counter(path.rpartition("/")[0] for path, *_ in list_images(root).images)
    inside = root.resolve()
    return {
        path: counts[path]
        for path in sorted(counts)
        if not any((inside / path).is_relative_to(folder) for folder in without)
    }


def _counted(folder: Path) -> Images:
    count = len(list_images(folder).images) if folder.is_dir() else 0
    if not count:
        raise _refused(folder, "has no real images: correct the folder of real images")
    return Images(folder, (), count)


class _Place(NamedTuple):
    """What the folders on a path mean."""

    generator: str
    part: str | None
    real: bool | None
    path: str


def _place(root: Path, path: str, no_parts: Collection[str]) -> _Place:
    """The generator, part and class of a folder, whose own path ends with the class.

    Folders of ``no_parts`` are named like a part, but are a category.

    Raises:
        UserError: if the path names both classes or several parts.
    """
    names = path.split("/") if path else []
    classes = [is_real(name) for name in names]
    known = [depth for depth, class_ in enumerate(classes) if class_ is not None]
    depth = known[0] if known else len(names) - 1
    of_names = parts_on(path, no_parts)
    parts = set(of_names[: depth + 1]) - {None}
    if len({classes[n] for n in known}) > 1 or len(parts) > 1:
        raise _refused(root, f"has a folder whose names contradict each other, {as_text(path)}")
    above = names[:depth] if known else names
    free = [name for name, part in zip(above, of_names, strict=False) if part is None]
    generator = free[0] if free else _name(root)
    real = classes[depth] if known else None
    part = next(iter(parts), None)
    return _Place(generator, part, real, "/".join(names[: depth + 1]))


def _of_class_folders(
    root: Path, folders: dict[str, int], given: tuple[Images, ...]
) -> tuple[Compared, ...]:
    """Generators whose folders are named after the classes."""
    counts: dict[_Place, int] = defaultdict(int)
    no_parts = categories(folders)
    for path, count in folders.items():
        counts[_place(root, path, no_parts)] += count
    unknown = [place.path or "." for place in counts if place.real is None]
    if unknown:
        raise _refused(
            root,
            f"has images in {as_text(', '.join(unknown[:3]))}, which name no class, beside folders "
            "that do: move them away, or name a folder below it",
        )
    beside: dict[tuple[str, str | None, bool | None], set[str]] = defaultdict(set)
    for place in counts:
        beside[place.path.rpartition("/")[0], place.part, place.real].add(place.path)
    for paths in beside.values():
        if len(paths) > 1:
            raise _refused(
                root, f"has two folders of one class side by side, {as_text(', '.join(paths))}"
            )
    found: dict[tuple[str, str | None], dict[bool, list[Images]]] = {}
    for place, count in counts.items():
        classes = found.setdefault((place.generator, place.part), {True: [], False: []})
        classes[bool(place.real)].append(Images(root / place.path, (), count))
    return _compared(root, found, given)


def _of_generator_folders(
    root: Path, folders: dict[str, int], given: tuple[Images, ...]
) -> tuple[Compared, ...]:
    """Generators whose folders have no class: all are generated but those named as real."""
    counts: dict[tuple[str, str | None, str, bool], int] = defaultdict(int)
    no_parts = categories(folders)
    for path, count in folders.items():
        generator, part, real, whole = _place(root, path, no_parts)
        if path == "" and len(folders) > 1:
            raise _refused(root, "has images beside folders of images: name one of the folders")
        depth = next((n for n, name in enumerate(path.split("/"), 1) if name == generator), 0)
        own = whole if real else "/".join(path.split("/")[:depth])
        counts[generator, part, own, bool(real)] += count
    found: dict[tuple[str, str | None], dict[bool, list[Images]]] = {}
    for (generator, part, own, real), count in counts.items():
        images = Images(root / own, (), count)
        if real:
            given = (*given, images)
        else:
            found.setdefault((generator, part), {True: [], False: []})[False].append(images)
    if not found:
        raise _refused(root, "has no generated images: name the data set's folder above it")
    return _compared(root, found, given)


def _compared(
    root: Path,
    found: dict[tuple[str, str | None], dict[bool, list[Images]]],
    given: tuple[Images, ...],
) -> tuple[Compared, ...]:
    """The generators with their own real images, or with the given ones if they have none."""
    compared = []
    used = False
    for (generator, part), classes in found.items():
        name = as_text(generator if part is None else f"{generator} ({part})")
        if not classes[False]:
            raise _refused(root, f"has no generated images of {name}: remove it")
        if not classes[True] and not given:
            raise _refused(root, f"has no real images for {name}: name a folder of real images")
        used = used or not classes[True]
        real = tuple(classes[True]) or given
        compared.append(Compared(generator, part, tuple(classes[False]), real))
    if given and not used:
        raise _refused(root, "has its own real images, so leave out those that are named")
    return tuple(compared)


def _of_parquet(root: Path, shards: Sequence[Path]) -> tuple[Compared, ...]:
    """Generators by the labels of rows, with their own real images if all have such."""
    found = {
        of: Images(root, labels, count)
        for of, (labels, count) in rows_by_label(root, shards, _name(root)).items()
    }
    generated = [of for of in found if not of.real]
    have_own = all(of._replace(real=True) in found for of in generated)
    compared = []
    for of in sorted(generated, key=lambda of: of.generator):
        reals = of._replace(generator=of.generator if have_own else "", real=True)
        if reals not in found:
            raise _refused(root, f"has no real images for {of.generator} ({of.part})")
        compared.append(Compared(of.generator, of.part, (found[of],), (found[reals],)))
    return tuple(compared)
