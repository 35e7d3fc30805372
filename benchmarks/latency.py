"""How long a person waits for an answer, and how much memory it takes. Linux and macOS.

    python benchmarks/latency.py
    python benchmarks/latency.py --image photo.jpg --question "what is ripe?" --json latency.json

Two ways of asking are measured with the `lisa` that this interpreter has installed:

- cold: `lisa segment` in a fresh process, from its start to the picture on disk; its peak memory;
- warm: one process that asks a first question and then further ones about the same picture.

Files are in the operating system's cache from the second cold run on; the best run shows that.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import lisa

COLD_RUNS = 3
FURTHER_QUESTIONS = (
    "what would be the first to fall over?",
    "the thing that a person would touch",
    "what is in the middle?",
    "which part of the picture is the brightest?",
    "what could be cleaned?",
)
STEPS = {
    "load": "load the model",
    "image": "take in the picture",
    "answer": "write the answer",
    "mask": "draw the mask",
}
COFFEE = Path(__file__).resolve().parents[1] / "examples" / "coffee.jpg"


def main(
    image: Annotated[Path, typer.Option(help="The picture to ask about.")] = COFFEE,
    question: Annotated[str, typer.Option(help="The first question.")] = (
        "something to wake up with"
    ),
    model: Annotated[str, typer.Option(help="As `lisa segment --model` has it.")] = "nano",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads to compute with; else as torch decides.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here, too.")
    ] = None,
) -> None:
    """Measure the time to an answer, cold and warm, and the peak memory."""
    cold = measure_cold(
        image, question, model, threads
    )  # before this process grows, see `run_once`
    warm = measure_warm(image, question, model, threads)
    figures = {
        "machine": describe_machine(threads),
        "image": str(image),
        "question": question,
        "model": model,
        "cold": cold,
        "warm": warm,
    }
    show(figures)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure_cold(image: Path, question: str, model: str, threads: int | None) -> dict[str, Any]:
    """Seconds and peak memory of whole `lisa segment` processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "overlay.png"
        command = ["segment", str(image), question, "--out", str(out), "--model", model]
        runs = [run_once(command, threads) for _ in range(COLD_RUNS)]
        assert out.is_file()
    return {
        **summary([seconds for seconds, _ in runs]),
        "peak_megabytes": max(peak for _, peak in runs),
    }


def run_once(arguments: Sequence[str], threads: int | None) -> tuple[float, float]:
    """Wall seconds and peak megabytes of one `lisa` process; its error ends this one.

    The operating system counts what the parent held at the start as the child's, too, so the parent
    must not have loaded a model yet.
    """
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "lisa", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            typer.echo(errors.read().decode(errors="replace"), err=True, nl=False)
            raise typer.Exit(process.returncode)
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # of bytes there, of kibibytes elsewhere
    return seconds, usage.ru_maxrss / unit


def measure_warm(image: Path, question: str, model: str, threads: int | None) -> dict[str, Any]:
    """Seconds of a first question and of further ones about the same picture, in this process."""
    import torch  # not before the cold runs: see `run_once`

    if threads:
        torch.set_num_threads(threads)
    segmenter = lisa.load(model)
    results, seconds = [], []
    for asked in (question, *FURTHER_QUESTIONS):
        started = time.perf_counter()
        results.append(segmenter.segment(image, asked))
        seconds.append(time.perf_counter() - started)
    return {
        "first_question": seconds[0],
        "further_questions": summary(seconds[1:]),
        "first_steps": {step: results[0].timings[step] for step in STEPS},
        "further_steps": {
            step: median(result.timings[step] for result in results[1:])
            for step in STEPS
            if step != "load"
        },
    }


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """What is told of several runs."""
    return {"seconds": list(seconds), "best": min(seconds), "median": median(seconds)}


def describe_machine(threads: int | None) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "lisa": lisa.__version__,
    }


def processor_name() -> str:
    """As the system calls it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def show(figures: dict[str, Any]) -> None:
    """The table, and the sentences about the machine under it."""
    cold, warm = figures["cold"], figures["warm"]
    table = Table(title=f'{Path(figures["image"]).name}, "{figures["question"]}"')
    table.add_column("measured")
    table.add_column("best", justify="right")
    table.add_column("median", justify="right")
    table.add_row("lisa segment, process start to picture on disk", *both(cold))
    table.add_row("    its peak memory", "", f"{cold['peak_megabytes']:.0f} MB", end_section=True)
    table.add_row(
        "first question in a running process (once)", "", f"{warm['first_question']:.2f} s"
    )
    for step, words in STEPS.items():
        aside = ", before it" if step == "load" else ""
        table.add_row(f"    {words}{aside}", "", f"{warm['first_steps'][step]:.2f} s")
    table.add_section()
    table.add_row("further question about the same picture", *both(warm["further_questions"]))
    for step, seconds in warm["further_steps"].items():
        table.add_row(f"    {STEPS[step]}", "", f"{seconds:.2f} s")
    console = Console()
    console.print(table)
    console.print(sentences(figures["machine"]), highlight=False)


def both(measured: dict[str, Any]) -> tuple[str, str]:
    """Best and median, as the table shows them."""
    return f"{measured['best']:.2f} s", f"{measured['median']:.2f} s"


def sentences(machine: dict[str, Any]) -> str:
    """The machine, for a person."""
    count = machine["threads"]
    threads = f"--threads {count}" if count else "as many threads as torch takes"
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, with {threads}. "
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}, "
        f"lisa {machine['lisa']}. Cold: {COLD_RUNS} runs; "
        f"further questions: {len(FURTHER_QUESTIONS)}."
    )


if __name__ == "__main__":
    typer.run(main)
