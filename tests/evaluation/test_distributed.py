"""One, two and three processes ask the same, once each, and come to the same figures."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.paths import CHECKOUT
from helpers.threshold_segmenter import PROTOCOLS, open_broken, open_segmenter, open_task
from lisa.errors import LisaError
from lisa.evaluation.distributed import Job, Outcome, run, share, work
from lisa.evaluation.evaluate import report_dict, summarise
from lisa.evaluation.journal import Journal

COUNT = 11
FOLDER = CHECKOUT / "tests"


def job(log: Path | None = None, journal: Journal | None = None, resume: bool = False) -> Job:
    return Job(partial(open_segmenter, log), partial(open_task, COUNT), journal, resume)


def figures(outcome: Outcome | None) -> str:
    """What the JSON says, but for time and memory."""
    assert outcome is not None
    task = open_task(COUNT)
    evaluations = [
        summarise(task, outcome.records, protocol, outcome.model) for protocol in PROTOCOLS
    ]
    report = report_dict(evaluations, samples=True)
    for part in report["protocols"].values():
        assert part.pop("seconds_per_question") >= 0
        del part["footprint"]
    return json.dumps(report)


@given(st.integers(1, 200), st.integers(1, 9))
def test_every_sample_is_in_exactly_one_share(count: int, world: int) -> None:
    shares = [share(count, rank, world) for rank in range(world)]
    assert [index for one in shares for index in one] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.slow
def test_one_two_and_three_processes_give_the_same_figures(tmp_path: Path) -> None:
    one = run(job())
    assert one is not None and one.footprint.processes == 1
    expected = figures(one)
    assert len(json.loads(expected)["protocols"]["generate"]["failures"]) == 2
    for processes in (2, 3):
        log = tmp_path / f"{processes}.jsonl"
        several = run(job(log), processes)
        assert several is not None and several.footprint.processes == processes
        assert figures(several) == expected
        asked = log.read_text().splitlines()
        assert len(asked) == 2 * (COUNT - 1)  # one cannot be read


def test_shares_in_one_process_give_the_same_figures() -> None:
    """The same without the cost of starting processes, for more ways to divide."""
    expected = figures(run(job()))
    for world in (2, 4, 5, COUNT, COUNT + 3):
        parts = [work(job(), rank, world, 0) for rank in range(world)]
        records = [record for part in reversed(parts) for record in part.records]
        assert figures(Outcome("threshold", records, parts[0].footprint)) == expected


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "scores.json.journal", {})
    dying = Job(open_broken, partial(open_task, COUNT), journal)
    with pytest.raises(LisaError, match=r"one of 2 processes ended abruptly.*--resume"):
        run(dying, 2)


def test_processes_do_not_start_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LisaError, match="--processes 3 inside 2 launched processes"):
        run(job(), 3)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_other_processes(tmp_path: Path) -> None:
    program = (
        "import sys\nsys.path[:0] = [sys.argv[1], sys.argv[1] + '/evaluation']\n"
        "from functools import partial\nfrom pathlib import Path\n"
        "from test_distributed import COUNT, Job, Journal, open_task, run\n"
        "from helpers.threshold_segmenter import open_slow\n"
        "journal = Journal(Path(sys.argv[2]), {})\n"
        "run(Job(partial(open_slow, None), partial(open_task, COUNT), journal))\n"
    )
    journal, log = Journal(tmp_path / "journal", {}), tmp_path / "asked.jsonl"
    running = subprocess.Popen([sys.executable, "-c", program, str(FOLDER), str(journal.folder)])
    deadline = time.monotonic() + 200
    while len(journal.read()) < 5:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    running.kill()
    running.wait()
    kept = len(journal.read())
    resumed = run(job(log, journal, resume=True), 2)
    assert figures(resumed) == figures(run(job()))
    failed = 2  # a question that raises, by both protocols; they are asked again
    total = 2 * (COUNT - 1)
    assert total - kept <= len(log.read_text().splitlines()) <= total - kept + failed


@pytest.mark.slow
def test_launched_processes_give_the_same_figures(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nsys.path[:0] = [sys.argv[1], sys.argv[1] + '/evaluation']\n"
        "from pathlib import Path\nfrom test_distributed import figures, job, run\n"
        "outcome = run(job())\n"
        "if outcome is not None:\n    Path(sys.argv[2]).write_text(figures(outcome))\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    address = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    written = tmp_path / "figures.json"
    done = subprocess.run(
        [*launcher, *address, str(program), str(FOLDER), str(written)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert written.read_text() == figures(run(job()))
