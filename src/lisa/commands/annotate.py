"""`lisa data annotate`: a person writes questions, another one checks them.

This file knows what is shown and what is typed, at a terminal or line by line from a file; the
rules of a good sample stand in `annotation/authoring.py`, which is imported only when it is asked
for.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lisa.commands.options import FormatOption, ImagesOption, SkipBadOption
from lisa.errors import DataError, LisaError

if TYPE_CHECKING:
    from lisa.annotation.authoring import Benchmark, Target

SHOWN = "looking.png"
STOP, SKIP, YES, NO = "q", "s", "y", "n"
SPLIT_HELP = "Shares of train, val and test."


def annotate(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE",
            help="Annotations in any format of `lisa data import`; needed the first time.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="SET", help="The folder of the set.", show_default=False)
    ] = Path("set"),
    by: Annotated[str, typer.Option(metavar="NAME", help="Who you are.", show_default=False)] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Check what others wrote, without seeing who.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Validate, split and write the ReasonSeg layout.")
    ] = False,
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take what would be typed from JSONL; [b]-[/b] is the standard input.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(metavar="SHARES", help=SPLIT_HELP)] = "0.6,0.2,0.2",
    seed: Annotated[int, typer.Option(help="Decides which pictures are which.")] = 0,
    format_name: FormatOption = None,
    images: ImagesOption = None,
    skip_bad: SkipBadOption = False,
) -> None:
    """Make a set of implicit questions from annotated pictures, as ReasonSeg is one.

    A target is picked in each picture. You write a question that does not name it; a second person
    says whether the question leads to it; what passes is split and written. Every decision is on
    the disk before the next one is asked for: the same command goes on where you stopped.

    \b
    [b]Lines of --answers[/b]
      {"question": "…", "answer": "…", "kind": "function"}   or   {"skip": true}
      {"good": true, "comment": "…"}                         with --check

    \b
    [b]Examples[/b]
      lisa data annotate labelled/ --out set --by Ann
      lisa data annotate --out set --check --by Bob
      lisa data annotate --out set --finish
    """
    from lisa.annotation.authoring import TARGETS, Benchmark

    if source is not None and not (out / TARGETS).is_file():
        begin(source, out, format_name, images, skip_bad)
    benchmark = Benchmark(out)
    if finish:
        tell_finished(benchmark, split, seed)
        return
    typed = scripted(answers) if answers else None
    if check:
        check_all(benchmark, by, typed)
    else:
        write_all(benchmark, by, typed)


def begin(source: Path, out: Path, format_name: Any, images: Path | None, skip_bad: bool) -> None:
    """Pick the targets."""
    from lisa.annotation.authoring import start
    from lisa.annotation.formats.source import Source

    named = format_name.value if format_name else None
    for message in start(Source(source, images), out, named, skip_bad):
        typer.echo(f"skipped {message}", err=True)


@dataclass(frozen=True)
class Line:
    """What a line of a script says, and where it stands."""

    where: str
    content: dict[str, Any]

    def text(self, key: str) -> str:
        """A field that may be missing."""
        value = self.content.get(key, "")
        if not isinstance(value, str):
            raise DataError(f"{self.where}: '{key}' is a {type(value).__name__}; expected text")
        return value


def scripted(path: Path) -> Iterator[Line]:
    """The lines of a script, one at a time, so that a program may write them as it goes."""
    try:
        stream = sys.stdin if str(path) == "-" else path.open(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; expected JSONL") from error
    for number, line in enumerate(stream, start=1):
        if line.strip():
            where = f"line {number} of '{path}'"
            try:
                content = json.loads(line)
            except ValueError as error:
                raise DataError(f"{where} is not valid JSON: {error}") from error
            if not isinstance(content, dict):
                raise DataError(f"{where} is not an object; expected fields")
            yield Line(where, content)


# Writing ------------------------------------------------------------------------------------------


def write_all(benchmark: "Benchmark", by: str, typed: Iterator[Line] | None) -> None:
    """Ask for a question about each target that has none."""
    from lisa.annotation.authoring import check_person

    check_person(by)
    todo = benchmark.to_write()
    for number, (target, why) in enumerate(todo, start=1):
        show(benchmark, target, f"{number} of {len(todo)}", why)
        if not (write_one(benchmark, target, by, typed)):
            break
    typer.echo(f"{len(benchmark.to_write())} of {len(benchmark.targets)} are still to be written")


def write_one(
    benchmark: "Benchmark", target: "Target", by: str, typed: Iterator[Line] | None
) -> bool:
    """One decision; False: the person stops."""
    from lisa.annotation.authoring import Decision

    if typed is not None:
        line = next(typed, None)
        if line is None:
            return False
        skip = line.content.get("skip") is True
        fields = [line.text(key) for key in ("question", "answer", "kind")]
        if not skip and not fields[0].strip():
            raise DataError(f"{line.where}: there is no 'question'; expected one, or 'skip': true")
        try:
            benchmark.write(Decision(target.key, by, *([] if skip else fields)))
        except LisaError as error:
            raise DataError(f"{line.where}: {error}") from error
        return True
    while True:
        question = typer.prompt(f"question ({SKIP}: skip, {STOP}: stop)").strip()
        if question == STOP:
            return False
        if question == SKIP:
            benchmark.write(Decision(target.key, by))
            return True
        answer = typer.prompt("answer", default=f"The {target.name}.")
        kind = typer.prompt(f"kind ({', '.join(kinds())})", default=kinds()[0])
        try:
            benchmark.write(Decision(target.key, by, question, answer, kind))
            return True
        except LisaError as error:
            typer.echo(f"{error}; try again", err=True)


def kinds() -> tuple[str, ...]:
    """The kinds of questions that are offered."""
    from lisa.annotation.authoring import KINDS

    return KINDS


def show(benchmark: "Benchmark", target: "Target", place: str, why: str = "") -> None:
    """Draw the target on its picture, into a file that a viewer may keep open."""
    from lisa.draw.overlay import draw_overlay
    from lisa.files import write_atomically
    from lisa.image import image_bytes, load_image
    from lisa.masks import decode_rle

    path = benchmark.root / "images" / target.image
    drawn = draw_overlay(load_image(path), [decode_rle(target.mask)], [""])
    shown = benchmark.root / SHOWN
    write_atomically(shown, image_bytes(drawn, "PNG"))
    typer.echo(f"{place}: {path}, target drawn in {shown}")
    if why:
        typer.echo(f"the last question was refused: {why}")


# Checking -----------------------------------------------------------------------------------------


def check_all(benchmark: "Benchmark", by: str, typed: Iterator[Line] | None) -> None:
    """Ask for a verdict on each question of others."""
    from lisa.annotation.authoring import Verdict, check_person

    check_person(by)
    todo = benchmark.to_check(by)
    for place, (number, target, decision) in enumerate(todo, start=1):
        show(benchmark, target, f"{place} of {len(todo)}")
        typer.echo(f"question: {decision.question}\nanswer:   {decision.answer}")
        verdict = typed_verdict(typed) if typed is not None else asked_verdict()
        if verdict is None:
            break
        good, comment = verdict
        if good is not None:
            benchmark.check(Verdict(number, by, good, comment))
    typer.echo(f"{len(benchmark.to_check(by))} are still to be checked by {by}")


def typed_verdict(typed: Iterator[Line]) -> tuple[bool | None, str] | None:
    """A verdict of a script; None: it has ended."""
    line = next(typed, None)
    if line is None:
        return None
    good = line.content.get("good")
    if not isinstance(good, bool):
        raise DataError(f"{line.where}: 'good' is {good!r}; expected true or false")
    return good, line.text("comment")


def asked_verdict() -> tuple[bool | None, str] | None:
    """A verdict of a person; (None, ""): no verdict on this one, None: the person stops."""
    asked = f"does it lead to the target and to nothing else? ({YES}, {NO}, {SKIP}, {STOP})"
    while True:
        said = typer.prompt(asked).strip().lower()
        if said == STOP:
            return None
        if said == SKIP:
            return None, ""
        if said in (YES, "yes"):
            return True, ""
        if said in (NO, "no"):
            return False, typer.prompt("why", default="")


# Finishing ----------------------------------------------------------------------------------------


def tell_finished(benchmark: "Benchmark", split: str, seed: int) -> None:
    """Write the set, and say what is in it and what is not."""
    from lisa.annotation.authoring import REJECTED, SPLITS

    finished = benchmark.finish(dict(zip(SPLITS, shares_of(split), strict=True)), seed)
    for one in finished.rejected:
        typer.echo(f"rejected {one.key}: {one.reason}")
    counts = ", ".join(f"{count} {name}" for name, count in finished.splits.items())
    typer.echo(f"wrote {finished.out} ({counts}); {len(finished.rejected)} in {REJECTED}")


def shares_of(text: str) -> list[float]:
    """Three shares that are not all 0."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 3 or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        raise DataError(f"--split is {text!r}; expected three shares such as 0.6,0.2,0.2")
    return shares
