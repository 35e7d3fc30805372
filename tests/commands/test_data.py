"""`lisa data import`, `stats` and `annotate` as a person types them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from helpers.own_files import make_coco, make_labelme, shape, write_json
from lisa.cli import app
from lisa.data.reasonseg import ReasonSeg
from lisa.errors import LisaError

QUESTIONS = [f'{{"question": "what is useful on day {n}?", "kind": "function"}}' for n in range(3)]
GOOD = ['{"good": true}'] * 3


def lisa(*arguments: str | Path, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)], input=typed)


def done(*arguments: str | Path, typed: str | None = None) -> str:
    """Run a command that must succeed; what it printed."""
    result = lisa(*arguments, typed=typed)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(*arguments: str | Path, typed: str | None = None) -> str:
    """Run a command that must fail with one line; the line."""
    result = lisa(*arguments, typed=typed)
    assert isinstance(result.exception, LisaError)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_import_says_what_it_found(tmp_path: Path) -> None:
    said = done("import", make_labelme(tmp_path / "source"), "--out", tmp_path / "mine")
    assert "labelme (as the files look)" in said
    assert "10 (8 train, 2 val)" in said
    assert "blue fip, zarp" in said


def test_import_prints_json(tmp_path: Path) -> None:
    source = make_coco(tmp_path / "source")
    said = json.loads(
        done("import", source, "--out", tmp_path / "mine", "--format", "coco", "--json")
    )
    assert (said["format"], said["recognised"], said["things"]) == ("coco", False, 15)


def test_import_names_what_is_broken_and_can_skip_it(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source")
    content = json.loads((source / "p03.json").read_text())
    broken = [shape(("zarp", 1, 1, 2, 2)) | {"points": [[1, 1], [2, 2]]}]
    write_json(source / "p03.json", content | {"shapes": broken * 12})
    said = refused("import", source, "--out", tmp_path / "mine")
    assert "p03.json" in said and "shape 0" in said
    said = done("import", source, "--out", tmp_path / "mine", "--skip-bad")
    assert "skipped    12" in said and "… and 2 more" in said


def test_stats_count_each_split(tmp_path: Path) -> None:
    done("import", make_labelme(tmp_path / "source"), "--out", tmp_path / "mine")
    table = done("stats", tmp_path / "mine")
    assert "train" in table and "val" in table and "name: blue fip" in table
    counted = json.loads(done("stats", tmp_path / "mine", "--json"))
    assert (counted["train"]["pictures"], counted["val"]["pictures"]) == (8, 2)
    one = json.loads(done("stats", tmp_path / "mine", "--split", "val", "--json"))
    assert one == {"val": counted["val"]}
    assert "expected a folder" in refused("stats", tmp_path, "--dataset", "own")
    assert "unknown data set" in refused("stats", tmp_path, "--dataset", "voc")


def annotate(root: Path, *arguments: str | Path, lines: list[str]) -> str:
    typed = "".join(f"{line}\n" for line in lines)
    return done("annotate", *arguments, "--out", root, "--answers", "-", typed=typed)


def test_a_set_is_made_from_begin_to_end(tmp_path: Path) -> None:
    source, root = make_labelme(tmp_path / "source", 3), tmp_path / "set"
    said = annotate(root, source, "--by", "Ann", lines=QUESTIONS[:1])
    assert "2 of 3 are still to be written" in said
    assert (root / "looking.png").is_file()
    said = annotate(root, source, "--by", "Ann", lines=QUESTIONS[1:])  # the same command goes on
    assert "0 of 3 are still to be written" in said
    said = annotate(root, "--check", "--by", "Bob", lines=GOOD)
    assert "0 are still to be checked by Bob" in said and "Ann" not in said
    said = done("annotate", "--out", root, "--finish", "--split", "1,0,0")
    assert "(3 train); 0 in rejected.jsonl" in said
    assert len(ReasonSeg(root / "reasonseg", "train")) == 3
    counted = json.loads(done("stats", root / "reasonseg", "--json"))
    assert counted["train"]["tags"] == {"function": 3, "long": 3}


def test_a_person_types_at_the_terminal(tmp_path: Path) -> None:
    source, root = make_labelme(tmp_path / "source", 3), tmp_path / "set"
    name_first = "where is the zarp?\n\n\n"  # refused: it names its target
    typed = f"{name_first}what shines?\n\nattribute\ns\nq\n"
    said = done("annotate", source, "--out", root, "--by", "Ann", typed=typed)
    assert "1 of 3 are still to be written" in said
    (line, *_) = (root / "written.jsonl").read_text().splitlines()
    decision = json.loads(line)
    assert (decision["question"], decision["kind"]) == ("what shines?", "attribute")
    assert decision["answer"] == "The zarp."
    done("annotate", "--out", root, "--check", "--by", "Bob", typed="n\nit is dull\n")
    said = done("annotate", "--out", root, "--by", "Ann", typed="q\n")
    assert "the last question was refused: no: it is dull" in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 of '-' is not valid JSON"),
        ("[]", "line 1 of '-' is not an object"),
        ("{}", "line 1 of '-': there is no 'question'"),
        ('{"question": 3}', "line 1 of '-': 'question' is a int"),
        ('{"question": "a zarp?"}', "line 1 of '-': 'a zarp?' names its target"),
    ],
)
def test_a_broken_line_of_answers_is_named(tmp_path: Path, line: str, message: str) -> None:
    source, root = make_labelme(tmp_path / "source", 1), tmp_path / "set"
    arguments = ["annotate", source, "--out", root, "--by", "Ann", "--answers", "-"]
    assert message in refused(*arguments, typed=f"{line}\n")


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    source, root = make_labelme(tmp_path / "source", 1), tmp_path / "set"
    assert "expected a folder begun" in refused("annotate", "--out", root, "--by", "Ann")
    assert "expected --by NAME" in refused("annotate", source, "--out", root)
    assert "three shares" in refused("annotate", "--out", root, "--finish", "--split", "1")
    annotate(root, "--by", "Ann", lines=QUESTIONS[:1])
    arguments = ["annotate", "--out", root, "--check", "--by", "Bob", "--answers", "-"]
    assert "'good' is None" in refused(*arguments, typed="{}\n")
    assert "cannot read" in refused(*arguments[:-1], tmp_path / "none.jsonl")
