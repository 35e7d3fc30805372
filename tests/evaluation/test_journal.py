"""Runs that were stopped go on where they were, and only where they are the same run."""

from functools import partial
from pathlib import Path

import pytest

from helpers.threshold_segmenter import PROTOCOLS, ThresholdSegmenter, open_segmenter, open_task
from lisa.errors import LisaError
from lisa.evaluation.distributed import Job, run
from lisa.evaluation.journal import Journal
from lisa.evaluation.runner import Record, ask

COUNT = 8
HEADER = {"model": "threshold", "n": COUNT}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "scores.json.journal", HEADER)


def answers() -> list[Record]:
    return list(ask(ThresholdSegmenter(), open_task(COUNT), range(COUNT)))


def untimed(records: list[Record]) -> list[tuple[object, ...]]:
    parts = [(one.index, one.protocol, one.text, one.masks, one.sample) for one in records]
    return sorted(parts, key=lambda one: one[:2])


def test_records_come_back_as_they_were_but_for_failures(journal: Journal) -> None:
    journal.begin(resume=False)
    kept = list(journal.keep(answers()))
    answered = [record for record in kept if record.error is None]
    assert len(answered) == len(kept) - 2 * 2  # sample 3 cannot be read, sample 6 raises
    assert sorted(journal.read(), key=lambda one: (one.index, one.protocol)) == answered


def test_half_a_line_is_no_record(journal: Journal) -> None:
    journal.begin(resume=False)
    list(journal.keep(answers()[:3]))
    (path,) = journal.folder.glob("*.jsonl")
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert untimed(journal.read()) == untimed(answers()[:2])


def test_a_stopped_run_asks_only_what_is_missing(journal: Journal, tmp_path: Path) -> None:
    task = partial(open_task, COUNT)
    expected = run(Job(partial(open_segmenter, None), task))
    journal.begin(resume=False)
    stopped = journal.keep(ask(ThresholdSegmenter(), task(), range(COUNT)))
    before = [next(stopped) for _ in range(5)]  # two samples, and one protocol of the third
    stopped.close()
    log = tmp_path / "asked.jsonl"
    resumed = run(Job(partial(open_segmenter, log), task, journal, resume=True))
    assert expected is not None and resumed is not None
    assert untimed(resumed.records) == untimed(expected.records)
    unread = len(PROTOCOLS)
    assert len(log.read_text().splitlines()) == len(PROTOCOLS) * COUNT - len(before) - unread


def test_without_resume_everything_is_asked_again(journal: Journal, tmp_path: Path) -> None:
    journal.begin(resume=False)
    list(journal.keep(answers()))
    log = tmp_path / "asked.jsonl"
    run(Job(partial(open_segmenter, log), partial(open_task, COUNT), journal))
    assert len(log.read_text().splitlines()) == len(PROTOCOLS) * (COUNT - 1)


def test_another_run_is_not_gone_on_with(journal: Journal) -> None:
    journal.begin(resume=True)  # nothing there: a run from the beginning
    journal.begin(resume=True)
    other = Journal(journal.folder, HEADER | {"model": "other"})
    with pytest.raises(LisaError, match=r"scores.json.journal' is of another model"):
        other.begin(resume=True)
    other.begin(resume=False)
    with pytest.raises(LisaError, match="expected the same"):
        journal.begin(resume=True)


def test_a_damaged_header_is_an_error_in_one_line(journal: Journal) -> None:
    journal.begin(resume=False)
    (journal.folder / "run.json").write_text('{"model"')
    with pytest.raises(LisaError, match="is of another model"):
        journal.begin(resume=True)


def test_nothing_is_left_of_a_journal_that_is_removed(journal: Journal, tmp_path: Path) -> None:
    journal.begin(resume=False)
    list(journal.keep(answers()))
    journal.remove()
    assert list(tmp_path.iterdir()) == []
    journal.remove()
