"""Time and memory: of this process, and of several together."""

import numpy as np
import psutil

from lisa.evaluation.footprint import Footprint, peak_gpu_memory, peak_memory, together


def test_the_peak_is_no_less_than_what_is_held_and_never_shrinks() -> None:
    block = np.ones(2**24, np.uint8)
    peak = peak_memory()
    assert 0.9 * psutil.Process().memory_info().rss <= peak < 2**40
    del block
    assert peak_memory() >= peak


def test_a_process_without_a_gpu_used_none_of_it() -> None:
    assert peak_gpu_memory() is None or peak_gpu_memory() >= 0


def test_processes_side_by_side_take_what_the_largest_takes() -> None:
    parts = [Footprint(0.0, 1, 300, None), Footprint(0.0, 1, 200, 70), Footprint(0.0, 1, 100, 90)]
    assert together(parts, 2.5) == Footprint(2.5, 3, 300, 90)
    assert together(parts[:1], 1.0).gpu_memory_bytes is None
