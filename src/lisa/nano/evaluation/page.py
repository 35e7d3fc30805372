"""``docs/nano.md``: what the weights of the small model can do, as a page of tables and plots.

Everything on the page was measured by ``study`` in the same run. Photographs of the data have
licences of their own: the sheet of best and worst answers stays beside the study and never goes
into the page's folder. This file knows how figures are shown and which are claimed; it measures
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lisa.data.reasonseg import ReasonSeg
from lisa.draw.plots import panels, reliability_plot
from lisa.draw.sheet import draw_sheet
from lisa.errors import LisaError
from lisa.evaluation.bootstrap import Difference, paired_difference
from lisa.files import write_atomically
from lisa.nano.evaluation import study
from lisa.nano.evaluation.study import Figures, Study, ious
from lisa.nano.model.segmenter import load, nano_parts
from lisa.nano.training.report import CURVES, STAGES, read_log, with_licence

RELEASE, ZERO_SHOT, TUNED = "release", "zero-shot", "ft239"
SHEET_BEST = SHEET_WORST = 12
DASH = "-"


@dataclass(frozen=True)
class Measured:
    """One model of the page."""

    name: str
    figures: Figures
    trained_on: list[str]
    curves: dict[str, list[tuple[float, float]]]  # of its run, where that is beside it


@dataclass(frozen=True)
class Claim:
    """A figure that was promised."""

    text: str
    wanted: str
    measured: float | None  # None: a model that it needs was not measured
    least: float
    low: float | None = None  # of an interval that must lie above 0

    @property
    def holds(self) -> str:
        """For a cell of the table."""
        if self.measured is None:
            return "not measured"
        above = self.low is None or self.low > 0
        return "yes" if self.measured >= self.least and above else "no"


def write_page(
    models: Mapping[str, str],
    data: Path,
    out: Path,
    cache: Path,
    device: str | None = None,
    limit: int | None = None,
    brief: bool = False,
) -> Path:
    """Measure the models, as far as ``cache`` does not know them, and write the page.

    Args:
        models: name -> "nano" or a model directory; the controls are measured on the first.
        data: the data folder, with ``photos`` and ``reasonseg_nano/val``.
        out: the page; its plots go into a folder of the same name beside it.
        cache: folder for what was measured, and for the sheets of photographs.
        device: as ``load`` has it.
        limit: ask only so many questions of each set, for a trial; None: all.
        brief: the models after the first answer the validation samples and nothing else.

    Raises:
        LisaError: there is no model. Other errors as those of ``load`` and ``study.run``.
    """
    if not models:
        raise LisaError("no model to report on; expected at least one NAME=DIR")
    cache.mkdir(parents=True, exist_ok=True)
    plots = out.with_suffix("")
    plots.mkdir(parents=True, exist_ok=True)
    measured = []
    for number, (name, model) in enumerate(models.items()):
        segmenter = load(model, device)
        subject = Study(segmenter, data, limit)
        first = number == 0
        figures = study.run(subject, model, cache, controls=first, brief=brief and not first)
        write_sheet(subject, figures, cache / f"sheet-{name}-{study.fingerprint(model)}.png")
        saw = nano_parts(segmenter)[1].config.trained_on
        measured.append(Measured(name, figures, saw, read_curves(Path(model).parent)))
    write_plots(measured, plots)
    command = " ".join(f"--model {name}={name_of_run(model)}" for name, model in models.items())
    command += " --brief" if brief else ""
    write_atomically(out, page(measured, plots.name, command, limit).encode())
    return out


def name_of_run(model: str) -> str:
    """How the page calls a model's directory: an absolute one by its last two names."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_absolute() else path.as_posix()


def write_sheet(subject: Study, figures: Figures, path: Path) -> None:
    """The best and the worst answers on photographs of the validation set, unless it is there."""
    if path.is_file():
        return
    samples = figures["generate"]["samples"]
    present = [n for n, sample in enumerate(samples) if sample["present"]]
    order = sorted(present, key=lambda n: -float(samples[n]["iou"]))
    val = ReasonSeg(subject.data / "reasonseg_nano", "val")
    shown = order[:SHEET_BEST] + order[SHEET_BEST:][-SHEET_WORST:]
    asked = [val[n] for n in shown]
    draw_sheet([subject.segmenter.segment(one.image, one.question) for one in asked]).save(path)


def read_curves(run: Path) -> dict[str, list[tuple[float, float]]]:
    """What a run's trainer logged more than once, by stage and name; none where there is no run."""
    found = {}
    for stage in STAGES:
        log = read_log(run / stage)
        for name in CURVES:
            points = [(float(e["step"]), float(e[name])) for e in log if name in e]
            if len(points) > 1:
                found[f"{stage}, {name}"] = points
    return found


def write_plots(measured: Sequence[Measured], folder: Path) -> None:
    """The reliability of all models in one plot, and the curves of each that has some."""
    tables = {one.name: rated(one.figures["generate"]) for one in measured}
    write_atomically(folder / "reliability.svg", reliability_plot(tables).encode())
    for one in measured:
        if one.curves:
            write_atomically(folder / f"curves-{one.name}.svg", panels(one.curves).encode())


def rated(scores: Figures) -> list[tuple[float, float, int]]:
    """(score, IoU, number of answers) of the bins that hold some."""
    return [(b["score"], b["iou"], b["n"]) for b in scores["reliability"] if b["n"]]


# ------------------------------------------------------------------ the page


def page(measured: Sequence[Measured], plots: str, command: str, limit: int | None) -> str:
    """The whole page as Markdown."""
    trial = [] if limit is None else [f"**A trial: at most {limit} questions of each set.**"]
    parts = [
        "# lisa-nano, measured",
        "Written by a command; to write it anew (add `--limit 5` for a quick trial):",
        f"```bash\nlisa report nano --data data {command} --out docs/nano.md\n```",
        *trial,
        "## What was promised",
        table(["claim", "wanted", "measured", "holds"], map(claim_row, claims(measured))),
        "## Reasoning: reasonseg_nano val",
        validation(measured),
        "gIoU of present targets, by the kind of question:",
        by_tag(measured),
        "Differences, photo by photo, with 95 % bootstrap intervals:",
        table(["difference in gIoU of present targets", "mean", "interval"], differences(measured)),
        "## What is left without a part",
        controls(measured[0]),
        "## Composite scenes and held-out knowledge",
        composites(measured),
        "## Referring to things on held-out photographs",
        referring(measured),
        "## Can the score be relied upon?",
        f"![Mean IoU over the model's own estimate of it]({plots}/reliability.svg)",
        *training(measured, plots),
        "## What the weights saw",
        *(f"**{one.name}**: {', '.join(map(with_licence, one.trained_on))}." for one in measured),
        "A sheet of the 12 best and the 12 worst answers is written beside the study; its "
        "photographs have licences of their own and are not part of this repository.",
    ]
    return "\n\n".join(parts) + "\n"


def table(heads: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None) -> str:
    """Three digits after the point."""
    return DASH if value is None else f"{value:.3f}"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """ "0.247 (0.203 to 0.289)"."""
    if value is None or interval is None:
        return number(value)
    return f"{number(value)} ({number(interval[0])} to {number(interval[1])})"


def validation(measured: Sequence[Measured]) -> str:
    """Both protocols, and the eyes alone, of each model."""
    ways = {
        "generate": "generate",
        "teacher-forced": "teacher-forced",
        "by-name": "generate, asked by name",
    }
    heads = ["model", "protocol", "gIoU of targets present", "gIoU", "cIoU"]
    heads += ["N-acc", "emission", "named", "calibration error", "failed"]
    rows = [
        [one.name, way, *score_cells(one.figures[key]), str(len(one.figures[key]["failures"]))]
        for one in measured
        for key, way in ways.items()
        if key in one.figures
    ]
    return table(heads, rows)


def score_cells(scores: Figures) -> list[str]:
    """The figures of one evaluation."""
    names = ("gIoU", "cIoU", "N_acc", "emission_rate", "naming_rate", "ECE")
    first = with_interval(scores["gIoU_present"], scores["gIoU_present_ci"])
    return [first, *(number(scores[name]) for name in names)]


def by_tag(measured: Sequence[Measured]) -> str:
    """Short and long questions, and their kinds."""
    groups = [one.figures["generate"]["by"] for one in measured]
    tags = sorted(groups[0], key=lambda tag: (tag not in ("short", "long"), -groups[0][tag]["n"]))
    rows = [
        [
            tag,
            str(groups[0][tag]["n"]),
            *(number(of.get(tag, {}).get("gIoU_present")) for of in groups),
        ]
        for tag in tags
    ]
    return table(["questions", "n", *(one.name for one in measured)], rows)


def pairs(measured: Sequence[Measured]) -> Iterator[tuple[str, Difference]]:
    """What is compared, question by question."""
    by_name = {one.name: one.figures for one in measured}
    if ZERO_SHOT in by_name and TUNED in by_name:
        tuned, zero = by_name[TUNED]["generate"], by_name[ZERO_SHOT]["generate"]
        yield f"{TUNED} minus {ZERO_SHOT}", paired_difference(ious(tuned), ious(zero))
    first = measured[0]
    own = ious(first.figures["generate"])
    for control in ("no language model", "shuffled", "no names", "teacher-forced"):
        other = ious(first.figures[control])
        yield f"{first.name} minus its {control}", paired_difference(own, other)


def differences(measured: Sequence[Measured]) -> Iterator[list[str]]:
    """A row for each comparison."""
    for text, found in pairs(measured):
        yield [text, f"{found.mean:+.3f}", f"{found.low:+.3f} to {found.high:+.3f}"]


def controls(one: Measured) -> str:
    """The controls of the first model, with its own figure above."""
    rows = {
        "generate": one.name,
        "shuffled": "asked another photo's question",
        "no language model": "the mean of the question's token embeddings instead of [SEG]",
        "no names": "without the names that the eyes find (no semantic projector)",
        "teacher-forced": 'without naming before [SEG] (the answer "[SEG]." is given)',
        "largest thing": "the largest thing that the eyes find, whatever is asked",
        "centre ellipse": "an ellipse in the middle, whatever is asked",
    }
    cells = [[text, *score_cells(one.figures[key])[:3]] for key, text in rows.items()]
    return table(["", "gIoU of targets present", "gIoU", "cIoU"], cells)


def composites(measured: Sequence[Measured]) -> str:
    """The right one of eight things, in pictures and in words."""
    heads = ["model", "questions", "right one of eight pointed at", "named"]
    heads += ["right one of eight named, without a picture"]
    rows = []
    for one in (one for one in measured if "held-out knowledge" in one.figures):
        for kind in ("phrasings", "things"):
            seen = one.figures[f"composite-{kind}"]
            told = one.figures["held-out knowledge"][kind]
            right = with_interval(seen["right"], seen["right_ci"])
            text = f"about held-out {kind}"
            rows.append([one.name, text, right, number(seen["named"]), number(told)])
    return table(heads, rows) + "\n\nChance is 0.125."


def referring(measured: Sequence[Measured]) -> str:
    """cIoU beside that of one who knows names but no "left" or "large"."""
    rows = []
    for one in (one for one in measured if "referring" in one.figures):
        scores = one.figures["referring"]
        rows.append(
            [one.name, "all", str(scores["n"]), number(scores["cIoU"]), number(scores["ceiling"])]
        )
        for tag, group in scores["by"].items():
            cells = [number(group["cIoU"]), number(scores["ceiling_by"][tag])]
            rows.append([one.name, tag, str(group["n"]), *cells])
    return table(["model", "asked by", "n", "cIoU", "cIoU of the class-union masks"], rows)


def training(measured: Sequence[Measured], plots: str) -> Iterator[str]:
    """The curves of those runs that are there."""
    drawn = [one for one in measured if one.curves]
    if drawn:
        yield "## Training"
    for one in drawn:
        yield f"![{one.name}: losses and validation over steps]({plots}/curves-{one.name}.svg)"


def claims(measured: Sequence[Measured]) -> Iterator[Claim]:
    """What was promised of the three weights, with what was measured."""
    figures = {one.name: one.figures for one in measured}

    def of(model: str, measure: str, name: str) -> float | None:
        return figures[model][measure][name] if model in figures else None

    yield Claim("asked by name", "gIoU 0.45", of(RELEASE, "by-name", "gIoU_present"), 0.45)
    yield Claim("release, generate", "gIoU 0.30", of(RELEASE, "generate", "gIoU_present"), 0.30)
    yield Claim("release refuses absent targets", "0.70", of(RELEASE, "generate", "N_acc"), 0.70)
    emission = of(RELEASE, "generate", "emission_rate")
    yield Claim("release answers present targets", "0.97", emission, 0.97)
    yield Claim("zero-shot", "gIoU 0.22", of(ZERO_SHOT, "generate", "gIoU_present"), 0.22)
    compared = dict(pairs(measured))
    for text, least, needs_interval in (
        (f"{TUNED} minus {ZERO_SHOT}", 0.02, True),
        (f"{RELEASE} minus its shuffled", 0.08, False),
        (f"{RELEASE} minus its no language model", 0.03, True),
    ):
        found = compared.get(text)
        low = found.low if found and needs_interval else None
        wanted = f"{least:+.2f}" + (", interval above 0" if needs_interval else "")
        yield Claim(text, wanted, found.mean if found else None, least, low)
    for kind, least in (("phrasings", 0.7), ("things", 0.5)):
        right = of(RELEASE, f"composite-{kind}", "right")
        yield Claim(f"composite scenes, held-out {kind}", f"{least:.2f}", right, least)
    yield Claim("referring set", "cIoU 0.45", of(RELEASE, "referring", "cIoU"), 0.45)
    error = of(RELEASE, "generate", "ECE")
    yield Claim("calibration error", "under 0.08", None if error is None else -error, -0.08)


def claim_row(claim: Claim) -> list[str]:
    """A row of the table of claims."""
    measured = DASH if claim.measured is None else f"{abs(claim.measured):.3f}"
    return [claim.text, claim.wanted, measured, claim.holds]
