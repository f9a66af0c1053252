"""Threads and numeric precision."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Precision(StrEnum):
    """Numeric precision of training and scoring."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def in_bfloat16(precision: Precision, on_gpu: bool) -> bool:
    """Whether to compute in bfloat16; for ``auto``, whether the device has it in hardware."""
    if precision is not Precision.auto:
        return precision is Precision.bf16
    if on_gpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def in_order(work: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[R]:
    """Map over items on all cores, results in order, with at most ``at_once`` items in memory.

    Threads, not processes: Pillow decodes and resizes outside Python's global lock, so that two
    threads are as fast as two processes, which would have to import torch first.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        rest = iter(items)
        pending = deque(pool.submit(work, item) for item in islice(rest, at_once))
        try:
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(rest, 1))
        finally:  # a consumer that stops early does not wait for unread results
            pool.shutdown(cancel_futures=True)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads for each job of `in_order` started inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
