"""Finished files: whole or not at all; files that only grow.

This file knows bytes, lines and folders; it refuses to know what they say."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lisa.errors import DataError, OutputError

Kind = TypeVar("Kind")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that the file is either complete or not there at all.

    The bytes go to a temporary file in the same folder, which then takes the final name. An older
    file stays as it was until that moment, and a symbolic link keeps pointing where it pointed.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or `path` is
            something other than a regular file. The message names `path`.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            kind = "a folder" if target.is_dir() else "not a regular file"
            raise OutputError(f"cannot write {str(path)!r}: it is {kind}; expected a file name")
        _replace(target, data)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = one_line(getattr(error, "strerror", None) or error)
        raise OutputError(
            f"cannot write {str(path)!r}: {reason}; expected a writable folder with enough space"
        ) from error


def _replace(target: Path, data: bytes) -> None:
    """Write a temporary file beside the target and rename it; remove it if that fails."""
    temporary = target.with_name(f".lisa-{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:  # an interruption by the user, too
        with contextlib.suppress(OSError):  # the folder may be gone: the first error says so
            temporary.unlink()
        raise


def one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__


def check_absent(path: Path) -> None:
    """Nothing is at ``path``.

    Raises:
        OutputError: something is.
    """
    if path.exists():
        raise OutputError(f"cannot write '{path}': it exists; expected a new directory")


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory that becomes ``path`` at the end of the block, or nothing at all.

    Raises:
        OutputError: ``path`` exists, or something in it cannot be written.
    """
    check_absent(path)
    temporary = path.parent / f".lisa-{uuid.uuid4().hex}.part"
    try:
        temporary.mkdir()
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}': {error.strerror or error}; "
            "expected a writable folder with enough space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def json_bytes(content: dict[str, Any]) -> bytes:
    """UTF-8; half characters, which a file name may hold, become JSON escapes."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    return text.encode("utf-8", "backslashreplace")


def records_of(path: Path, kind: type[Kind]) -> list[Kind]:
    """The records of a file as values; a last line that was not written to its end is none.

    Raises:
        DataError: a line is not JSON, or not the fields of ``kind``.
    """
    found = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            found.append(kind(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"line {number} of '{path}' is no {kind.__name__.lower()} ({error})"
            ) from error
    return found


def whole_lines(path: Path) -> list[bytes]:
    """The lines that end; none where there is no file."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record, on the disk when this returns; half a line of an interruption is cut off.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    try:
        with path.open("a+b") as stream:
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
            stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}; expected space") from error
