"""`lisa eval`: a model over a data set, or two evaluations compared.

This file knows what a person types and what is printed; measuring is imported only when it is
asked for, so that `--help` is fast.
"""

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lisa.commands.options import (
    DeviceMapOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeOption,
    SkipBadOption,
    device_or_none,
    require_folder,
)
from lisa.errors import DataError, LisaError

if TYPE_CHECKING:
    from lisa.evaluation.distributed import Outcome
    from lisa.evaluation.journal import Journal
    from lisa.evaluation.runner import AsksQuestions, Task
    from lisa.example import Example


class Protocol(StrEnum):
    """Who writes the answer: the model, or the protocol."""

    generate = "generate"
    teacher_forced = "teacher-forced"
    both = "both"


def _known_dataset(name: str) -> str:
    from lisa.data.datasets import DATASETS

    if name not in DATASETS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(DATASETS)}.")
    return name


def evaluate(
    context: typer.Context,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder with the photos and their annotations.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="[b]generate[/b]: the model writes the answer; no mask in it scores as an empty "
            r"mask. [b]teacher-forced[/b]: the answer '\[SEG].' is given, as in the paper. "
            "[b]both[/b]: side by side.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            callback=_known_dataset,
            help="The data set: [b]reasonseg[/b], [b]refcoco[/b], [b]refcoco+[/b], "
            "[b]refcocog-umd[/b], [b]grefcoco[/b], [b]own[/b], …",
        ),
    ] = "reasonseg",
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The split, such as [b]val[/b] or [b]testA[/b]. Without it: DIR itself.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = "nano",
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    device_map: DeviceMapOption = None,
    quantize: QuantizeOption = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Divide the questions among so many processes, each with the model. The scores "
            "are those of one. Or start the command with [b]torchrun[/b] or "
            "[b]accelerate launch[/b].",
        ),
    ] = 1,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the scores here.", show_default=False),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write a page with plots and the worst answers as pictures.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was stopped: what it scored is in "
            "[b]FILE.journal[/b] beside the scores. Samples that failed are asked again.",
        ),
    ] = False,
    shuffle_questions: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Ask each photo another photo's question. The score that is left is what the "
            "model gets without reading the question.",
            show_default=False,
        ),
    ] = None,
    per_sample: Annotated[
        bool,
        typer.Option(
            "--per-sample",
            help="Write the score of each sample too, so that two runs can be compared in pairs.",
        ),
    ] = False,
    paper_wording: Annotated[
        bool,
        typer.Option(
            "--paper-wording",
            help="Ask in the words of the paper's validation, which its checkpoints know: "
            "'What is … in this image? Please output segmentation mask.'",
        ),
    ] = False,
    skip_bad: SkipBadOption = False,
    allow_contaminated: Annotated[
        bool,
        typer.Option(
            "--allow-contaminated",
            help="Measure on what the weights were trained on, too; the figures are marked.",
        ),
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A.json B.json",
            help="Measure nothing: compare two runs written with [b]--per-sample[/b] in pairs.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure a model on a data set, through the same code that answers a person.

    Prints a table. A sample that fails counts as wrong and is listed by name; with --skip-bad, one
    that cannot be read is left out and listed instead.

    \b
    [b]Measures[/b], each with a 95 % interval
      gIoU           mean IoU of all samples; absent and nothing found counts 1
      gIoU_present   mean IoU of the samples that have a target
      cIoU           intersections of all samples over unions of all samples
      boundary_IoU   mean IoU of the outlines of present targets
      P@0.5 … P@0.9  share of present targets with at least this IoU
      N_acc, T_acc   share of absent targets left empty; of present ones not left empty
      emission_rate  share of present targets that were answered with a mask
      naming_rate    share of present targets that the answer names, where the file has a name
      ECE            how far the masks' own scores are from their IoU (calibration error)

    \b
    [b]Examples[/b]
      lisa eval --root ReasonSeg --split val --protocol generate
      lisa eval --root ReasonSeg --split val --protocol both --json a.json --html a.html
      lisa eval --dataset refcoco+ --root data --split testA --protocol generate --processes 4
      lisa eval --root ReasonSeg/val --protocol generate --shuffle-questions 0
      lisa eval --compare a.json b.json
    """
    for path in (json_file, html_file):
        if path is not None:
            require_folder(path)
    if compare is not None:
        _compare(*compare, json_file)
        return
    if root is None or protocol is None:
        missing = "--root DIR" if root is None else "--protocol NAME"
        raise typer.BadParameter(f"expected {missing}, or --compare A.json B.json", context)
    if resume and json_file is None:
        raise LisaError("--resume without --json FILE; expected the file of the run to go on with")
    precision = {"dtype": dtype, "device_map": device_map, "quantize": quantize}
    from lisa.evaluation import distributed
    from lisa.evaluation.runner import PROTOCOLS

    protocols = tuple(PROTOCOLS) if protocol is Protocol.both else (protocol.value,)
    open_examples = partial(_open_examples, dataset, root, split, skip_bad)
    open_task = partial(_open_task, open_examples, protocols, shuffle_questions, paper_wording)
    task = open_task()
    _say_what_was_skipped(task)
    contaminated = _seen(model, task, dataset, split, root)
    if contaminated is not None and not allow_contaminated:
        raise LisaError(
            f"model '{model}' was trained on {contaminated}; expected a split that it has not "
            "seen, or --allow-contaminated"
        )
    journal = _journal(json_file, model, task, root, split, precision)
    job = distributed.Job(
        open_segmenter=partial(_open_segmenter, model, device_or_none(device), precision),
        open_task=open_task if processes > 1 else lambda: task,
        journal=journal,
        resume=resume,
        progress=True,
    )
    outcome = distributed.run(job, processes)
    if outcome is None:  # the first of the launched processes has it
        return
    _report(task, outcome, contaminated, json_file, html_file, per_sample)
    if journal is not None:
        journal.remove()


def _open_examples(
    dataset: str, root: Path, split: str | None, skip_bad: bool
) -> "Sequence[Example]":
    from lisa.data.datasets import DATASETS, open_dataset

    if DATASETS[dataset].family == "vqa":
        raise DataError(f"data set '{dataset}' has no masks; expected one that can be scored")
    return open_dataset(dataset, root, split, skip_bad)


def _open_task(
    open_examples: "Callable[[], Sequence[Example]]",
    protocols: tuple[str, ...],
    shuffle: int | None,
    paper_wording: bool,
) -> "Task":
    from lisa.evaluation.runner import Task

    return Task(open_examples(), protocols, shuffle, paper_wording)


def _say_what_was_skipped(task: "Task") -> None:
    """What ``--skip-bad`` left out, on stderr: each record, and how many."""
    skipped = getattr(task.dataset, "skipped", [])
    for message in skipped:
        typer.echo(f"skipped: {message}", err=True)
    if skipped:
        typer.echo(f"skipped {len(skipped)} in all; they are in no figure", err=True)


def _open_segmenter(
    model: str, device: str | None, precision: dict[str, Any], number: int
) -> "AsksQuestions":
    """The model on its device; of several processes each takes the next GPU."""
    from torch import cuda

    from lisa import models

    if device in (None, "cuda") and precision["device_map"] is None and cuda.device_count() > 1:
        device = f"cuda:{number % cuda.device_count()}"
    return models.load(model, device, **precision)


def _seen(model: str, task: "Task", dataset: str, split: str | None, root: Path) -> str | None:
    """The source of the weights that holds what is to be measured."""
    from lisa.checkpoints.directory import model_directory, read_config
    from lisa.evaluation.contamination import seen

    sources = read_config(model_directory(model)).trained_on
    names = (dataset, getattr(task.dataset, "name", dataset))
    found = [seen(sources, name, split, root) for name in names]
    return next((one for one in found if one is not None), None)


def _journal(
    json_file: Path | None,
    model: str,
    task: "Task",
    root: Path,
    split: str | None,
    precision: dict[str, Any],
) -> "Journal | None":
    """Where the run is kept while it goes on: beside its scores."""
    if json_file is None:
        return None
    from lisa.checkpoints.directory import model_directory
    from lisa.evaluation.journal import Journal

    files = sorted(path for path in model_directory(model).iterdir() if path.is_file())
    header = {
        "model": model,
        "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files],
        "dataset": getattr(task.dataset, "name", ""),
        "root": str(root.resolve()),
        "split": split,
        "n": len(task.dataset),
        "shuffle_questions": task.shuffle_questions,
        "paper_wording": task.paper_wording,
        **precision,
    }
    return Journal(json_file.with_name(f"{json_file.name}.journal"), header)


def _report(
    task: "Task",
    outcome: "Outcome",
    contaminated: str | None,
    json_file: Path | None,
    html_file: Path | None,
    per_sample: bool,
) -> None:
    from lisa.evaluation.evaluate import report_dict, report_text, summarise
    from lisa.evaluation.page import page
    from lisa.files import write_atomically

    evaluations = [
        summarise(
            task,
            outcome.records,
            protocol,
            outcome.model,
            contaminated=contaminated,
            footprint=outcome.footprint,
        )
        for protocol in task.protocols
    ]
    if json_file is not None:
        _write_json(report_dict(evaluations, per_sample), json_file)
    if html_file is not None:
        write_atomically(html_file, page(task, evaluations, outcome.records).encode())
    typer.echo(report_text(evaluations))


def _compare(first: Path, second: Path, json_file: Path | None) -> None:
    from lisa.evaluation.compare import compare_files

    comparisons = compare_files(first, second)
    if json_file is not None:
        _write_json([one.to_dict() for one in comparisons], json_file)
    typer.echo("\n\n".join(map(str, comparisons)))


def _write_json(values: "dict[str, Any] | Sequence[dict[str, Any]]", path: Path) -> None:
    from lisa.files import write_atomically

    write_atomically(path, f"{json.dumps(values, indent=2)}\n".encode())
