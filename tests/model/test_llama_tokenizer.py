"""White space around tokens, round trips, and tokenizer files that cannot be used."""

import json
from pathlib import Path

import pytest

from helpers.llama_tokenizer import llama_tokenizer, pieces
from lisa.errors import ModelError
from lisa.model.llama_tokenizer import LegacyTokenizer


@pytest.fixture
def tokenizer() -> LegacyTokenizer:
    return llama_tokenizer()


def text_ids(tokenizer: LegacyTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, bos=False)


def test_white_space_around_added_tokens_is_dropped(tokenizer: LegacyTokenizer) -> None:
    seg = tokenizer.seg_token_id
    a, stop = text_ids(tokenizer, "a"), text_ids(tokenizer, ".")
    assert text_ids(tokenizer, "a \n\t[SEG] \n.") == [*a, seg, *stop]
    assert text_ids(tokenizer, " [SEG]  [SEG] ") == [seg, seg]


def test_white_space_around_control_tokens_stays(tokenizer: LegacyTokenizer) -> None:
    a_blank, b = text_ids(tokenizer, "a "), text_ids(tokenizer, " b")
    assert text_ids(tokenizer, "a </s> b") == [*a_blank, tokenizer.eos_token_id, *b]
    assert a_blank != text_ids(tokenizer, "a")


def test_each_piece_of_text_begins_anew(tokenizer: LegacyTokenizer) -> None:
    """The "▁" of a beginning stands in front of what follows a token, too."""
    assert text_ids(tokenizer, "[SEG].")[1:] == text_ids(tokenizer, ".")
    assert text_ids(tokenizer, "</s>USER")[1:] == text_ids(tokenizer, "USER")


def test_the_longest_token_wins() -> None:
    tokenizer = llama_tokenizer("<im", "<im_start>")
    assert text_ids(tokenizer, "<im_start>") == [tokenizer.token_id("<im_start>")]


def test_bos_is_added_unless_refused(tokenizer: LegacyTokenizer) -> None:
    assert tokenizer.encode("") == [tokenizer.bos_token_id]
    assert tokenizer.encode("", bos=False) == []


@pytest.mark.parametrize("text", ["the cup, a dog", "two  blanks", "line\nbreak", "é☕ 東京"])
def test_text_comes_back(tokenizer: LegacyTokenizer, text: str) -> None:
    assert tokenizer.decode(text_ids(tokenizer, text)) == text


def test_decoding_parts_added_tokens_by_blanks(tokenizer: LegacyTokenizer) -> None:
    ids = tokenizer.encode("a[SEG].</s>")
    assert tokenizer.decode(ids) == "<s>a [SEG]  .</s>"
    assert tokenizer.decode(ids, skip_special=True) == "a [SEG] ."


def test_decoding_refuses_what_is_no_token(tokenizer: LegacyTokenizer) -> None:
    with pytest.raises(ModelError, match="there is no token -200"):
        tokenizer.decode([-200])
    with pytest.raises(ModelError, match=f"there is no token {len(tokenizer)}"):
        tokenizer.decode([len(tokenizer)])


def test_adding_a_token_twice_changes_nothing(tokenizer: LegacyTokenizer) -> None:
    size = len(tokenizer)
    assert tokenizer.add("[SEG]") == tokenizer.seg_token_id
    assert tokenizer.add("</s>") == tokenizer.eos_token_id
    assert len(tokenizer) == size


def test_save_and_read(tmp_path: Path, tokenizer: LegacyTokenizer) -> None:
    tokenizer.save(tmp_path)
    again = LegacyTokenizer.read(tmp_path)
    assert again.added == tokenizer.added
    assert again.encode("Sure, [SEG].") == tokenizer.encode("Sure, [SEG].")


def test_without_seg(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(pieces())
    with pytest.raises(ModelError, match=r"no \[SEG\]; expected it among added_tokens.json"):
        _ = LegacyTokenizer.read(tmp_path).seg_token_id


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ("{", "added_tokens.json is not JSON"),
        ("[1]", "added_tokens.json is no table"),
        ('{"[SEG]": "1"}', "added_tokens.json is no table"),
        ('{"[SEG]": 99999}', r"added token '\[SEG\]' has id 99999; expected "),
    ],
)
def test_unusable_added_tokens(tmp_path: Path, added: str, problem: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(pieces())
    (tmp_path / "added_tokens.json").write_text(added)
    with pytest.raises(ModelError, match=problem):
        LegacyTokenizer.read(tmp_path)


def test_control_tokens_among_the_added_are_no_news(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(pieces())
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<unk>": 0, "<s>": 1, "</s>": 2}))
    assert LegacyTokenizer.read(tmp_path).added == {}


def test_missing_and_damaged_pieces(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read '.*tokenizer.model': No such file"):
        LegacyTokenizer.read(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"tokenizer.model is damaged"):
        LegacyTokenizer.read(tmp_path)
