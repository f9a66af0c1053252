"""Our search for near-duplicates beside an index of nearest neighbours, faiss, on one core.

Hashes are made up; 1 % differ from another one in 1 to 7 bits. Ours also finds mirror
images, which the indexes would need a second search for. ``pip install faiss-cpu`` first.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterator

import faiss
import numpy as np

from forensics.images.duplicates import MAX_DIFFERING_BITS, near_duplicates

SYMMETRIC = np.broadcast_to(np.abs(np.arange(-31.5, 32))[None, :, None], (1, 64, 64, 3))
"""One picture for all hashes, its own mirror image, so that pairs depend on their hashes only."""


def ours(hashes: np.ndarray, of_a_pair: np.ndarray) -> np.ndarray:
    """Whether each planted pair, of positions ``n`` and ``n + 1``, is found."""
    pairs = near_duplicates(hashes, lambda at: np.repeat(SYMMETRIC, len(at), 0).astype(np.uint8))
    return np.isin(of_a_pair, pairs.first[pairs.second == pairs.first + 1])


def graph(hashes: np.ndarray, of_a_pair: np.ndarray) -> np.ndarray:
    """The same by faiss' graph of neighbours (HNSW), 4 neighbours of each hash."""
    index = faiss.IndexBinaryHNSW(64, 16)
    rows = hashes.view(np.uint8).reshape(-1, 8)
    index.add(rows)
    found = index.search(rows, 4)[1][of_a_pair]
    return np.asarray((found == of_a_pair[:, None] + 1).any(axis=1))


def tables(hashes: np.ndarray, of_a_pair: np.ndarray) -> np.ndarray:
    """The same by faiss' hash tables: 3 groups of 21 bits, up to 2 of which differ; exact."""
    index = faiss.IndexBinaryMultiHash(64, 3, 21)
    index.nflip = 2
    rows = hashes.view(np.uint8).reshape(-1, 8)
    index.add(rows)
    starts, _, found = index.range_search(rows, MAX_DIFFERING_BITS + 1)
    return np.array([at + 1 in found[starts[at] : starts[at + 1]] for at in of_a_pair])


def measured(counts: list[int]) -> Iterator[dict[str, object]]:
    """A row of each method and number of hashes."""
    for count in counts:
        draws = np.random.default_rng(0)
        hashes = draws.integers(0, 2**64, count, np.uint64)
        of_a_pair = np.arange(0, count, 100)
        for first in of_a_pair:
            bits = draws.permutation(64)[: draws.integers(1, MAX_DIFFERING_BITS + 1)]
            flipped = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64))
            hashes[first + 1] = hashes[first] ^ flipped
        for method in (ours, graph, tables):
            start = time.process_time()
            found = method(hashes, of_a_pair)
            yield {"method": method.__name__, "hashes": count,
                   "cpu_s": f"{time.process_time() - start:.3g}",
                   "found_percent": f"{100 * found.mean():.2f}"}  # fmt: skip


def main() -> None:
    """Print a table of comma-separated values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hashes", type=int, nargs="+", default=[100_000, 1_000_000])
    faiss.omp_set_num_threads(1)
    writer = csv.DictWriter(sys.stdout, ["method", "hashes", "cpu_s", "found_percent"])
    writer.writeheader()
    for row in measured(parser.parse_args().hashes):
        writer.writerow(row)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
