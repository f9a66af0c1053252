"""Threads of jobs."""

import pytest
import torch

from forensics.compute import in_order, torch_threads


def test_jobs_compute_with_the_threads_they_are_given_and_no_longer() -> None:
    def threads(_: int) -> int:
        return torch.get_num_threads()

    before = torch.get_num_threads()
    with torch_threads(before + 2):
        assert list(in_order(threads, range(3), 2)) == [before + 2] * 3
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), torch_threads(before + 2):
        raise KeyError
    assert torch.get_num_threads() == before
