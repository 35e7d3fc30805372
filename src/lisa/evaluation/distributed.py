"""An evaluation divided among processes: each question is asked once, by one of them.

Processes are spawned here, or were started by ``torchrun`` or ``accelerate launch``. Each takes a
run of neighbouring samples, so that the questions about one picture stay together, and each opens
the model and the data set for itself. This file knows who asks what; it refuses to know how answers
are scored.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from lisa.errors import LisaError
from lisa.evaluation.footprint import Footprint, peak_gpu_memory, peak_memory, together
from lisa.evaluation.journal import Journal
from lisa.evaluation.runner import AsksQuestions, Record, Task, ask

LONGEST_WAIT = timedelta(days=30)  # a process that is done waits for the others


@dataclass(frozen=True)
class Job:
    """What is measured, in a form that another process can open.

    Attributes:
        open_segmenter: takes the number of the process on its machine, from 0.
        open_task: reads the data set.
        journal: where records are kept while the job runs; None: nowhere.
        resume: go on with what the journal holds.
        progress: draw a progress bar on standard error.
    """

    open_segmenter: Callable[[int], AsksQuestions]
    open_task: Callable[[], Task]
    journal: Journal | None = None
    resume: bool = False
    progress: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a job, or a process's part of it, has brought."""

    model: str
    records: list[Record]
    footprint: Footprint


def run(job: Job, processes: int = 1) -> Outcome | None:
    """Ask everything, in this process or in several.

    Args:
        job: what is asked.
        processes: how many to spawn. Under ``torchrun`` or ``accelerate launch`` they are there
            already, and this must be 1.

    Returns:
        Everything; None in all processes but the first of those that were there already.

    Raises:
        LisaError: processes would start processes, or one of them ended abruptly.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 and processes > 1:
        raise LisaError(
            f"--processes {processes} inside {launched} launched processes; expected one of the two"
        )
    started = time.perf_counter()
    parts = _run_launched(job) if launched > 1 else _run_here(job, processes)
    if parts is None:
        return None
    return Outcome(
        parts[0].model,
        [record for part in parts for record in part.records],
        together([part.footprint for part in parts], time.perf_counter() - started),
    )


def share(count: int, rank: int, world: int) -> range:
    """The samples of one process: neighbours, each sample in exactly one share."""
    return range(rank * count // world, (rank + 1) * count // world)


def work(job: Job, rank: int, world: int, local_rank: int) -> Outcome:
    """One process's share of a job."""
    task = job.open_task()
    indices = share(len(task.dataset), rank, world)
    kept = job.journal.read() if job.journal is not None and job.resume else []
    records = [record for record in kept if record.index in indices]
    segmenter = job.open_segmenter(local_rank)
    asked = ask(
        segmenter,
        task,
        indices,
        done={(record.index, record.protocol) for record in records},
        progress=job.progress and rank == 0,
    )
    records += job.journal.keep(asked) if job.journal is not None else asked
    return Outcome(segmenter.name, records, Footprint(0.0, 1, peak_memory(), peak_gpu_memory()))


def _run_here(job: Job, processes: int) -> Sequence[Outcome]:
    if job.journal is not None:
        job.journal.begin(job.resume)
    if processes == 1:
        return [work(job, 0, 1, 0)]
    pool = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
    )
    try:
        with _environment(_of_children()):
            waiting = [pool.submit(work, job, rank, processes, rank) for rank in range(processes)]
        return [one.result() for one in waiting]
    except BrokenProcessPool as error:
        kept = " (--resume goes on with what was scored)" if job.journal is not None else ""
        raise LisaError(
            f"one of {processes} processes ended abruptly, perhaps out of memory; expected room "
            f"for a model in each{kept}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _of_children() -> dict[str, str]:
    """What spawned processes shall find in their environment.

    Idle threads leave the cores to each other, and each process has as many threads as this one:
    the last digits of sums depend on it.
    """
    torch = sys.modules.get("torch")
    threads = {} if torch is None else {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"), **threads}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run_launched(job: Job) -> Sequence[Outcome] | None:
    """Share the job with the processes of a launcher; the first one gathers."""
    from torch import distributed  # who was launched this way has it

    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    world = int(os.environ["WORLD_SIZE"])
    group_is_ours = not distributed.is_initialized()
    if group_is_ours:
        distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        if job.journal is not None and rank == 0:
            job.journal.begin(job.resume)
        distributed.barrier()
        part = work(job, rank, world, local_rank)
        parts: list[Outcome] | None = [part] * world if rank == 0 else None
        distributed.gather_object(part, parts)
        return parts
    finally:
        if group_is_ours:
            distributed.destroy_process_group()
