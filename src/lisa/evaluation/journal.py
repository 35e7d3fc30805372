"""What an evaluation has scored so far, on disk, so that one that was stopped goes on.

    FOLDER/run.json      what is measured: another model or data set is another run
    FOLDER/ID.jsonl      one record a line; each process appends to a file of its own

This file knows the files; it refuses to know how records come about.
"""

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lisa.errors import LisaError, OutputError
from lisa.evaluation.metrics import SampleScore
from lisa.evaluation.runner import FoundMask, Record
from lisa.files import write_atomically

HEADER = "run.json"


@dataclass(frozen=True)
class Journal:
    """A folder of records.

    Args:
        folder: made by ``begin``, removed by ``remove``.
        header: what is measured, made of what JSON can hold.
    """

    folder: Path
    header: Mapping[str, Any]

    def begin(self, resume: bool) -> None:
        """Make the folder; keep what is in it where the run goes on, and else remove it.

        Raises:
            LisaError: what is there is of another run.
            OutputError: the folder cannot be made.
        """
        if not resume:
            self.remove()
        path, header = self.folder / HEADER, json.dumps(self.header)
        if path.is_file() and path.read_text(encoding="utf-8") != header:
            raise LisaError(
                f"'{self.folder}' is of another model, data set or setting; expected the same, "
                "or no --resume"
            )
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make '{self.folder}': {error.strerror}") from error
        write_atomically(path, header.encode())

    def read(self) -> list[Record]:
        """The answers that were written; questions that raised are to be asked again."""
        found: dict[tuple[int, str], Record] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for record in _records(path):
                if record.error is None:
                    found[record.index, record.protocol] = record
        return list(found.values())

    def keep(self, records: Iterable[Record]) -> Iterator[Record]:
        """Pass records on; each is on its way to the disk before the next one is asked for."""
        path = self.folder / f"{uuid.uuid4().hex}.jsonl"
        with path.open("x", encoding="utf-8") as stream:
            for record in records:
                stream.write(f"{json.dumps(asdict(record))}\n")
                stream.flush()
                yield record

    def remove(self) -> None:
        """The run is done."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def _records(path: Path) -> Iterator[Record]:
    """The whole lines of a file; a process that was killed may leave half a line at the end."""
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        values = json.loads(line)
        sample = values["sample"]
        values["sample"] = SampleScore(**sample | {"tags": tuple(sample["tags"])})
        values["masks"] = tuple(FoundMask(**mask) for mask in values["masks"])
        yield Record(**values)
