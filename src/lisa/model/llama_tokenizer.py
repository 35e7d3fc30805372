"""The slow LLaMA tokenizer of transformers 4.31, written out: the official checkpoints speak it.

Three rules make it differ from every later tokenizer, each of them at the position whose hidden
state becomes the mask:

    around added tokens (``[SEG]``, ``<im_start>``, ...) all white space is dropped;
    around ``<s>``, ``</s>`` and ``<unk>`` none is;
    each piece of text between them is a text of its own, and so begins with a "▁".

The pieces themselves are those of ``sentencepiece``. This file reads ``tokenizer.model`` and
``added_tokens.json``; it knows no templates, and what the tokens mean is not its business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from lisa.errors import ModelError
from lisa.example import SEG_TOKEN
from lisa.files import write_atomically

PIECES_FILE = "tokenizer.model"
ADDED_FILE = "added_tokens.json"


class LegacyTokenizer:
    """Text -> ids and back, as transformers 4.31 does it with ``legacy=True``.

    Args:
        pieces: the bytes of a sentencepiece model (``tokenizer.model``).
        added: the tokens beyond it, with their ids.

    Raises:
        ModelError: not a sentencepiece model, without the control tokens of LLaMA, or the added
            ids are not the ones that follow its own.
    """

    def __init__(self, pieces: bytes, added: dict[str, int] | None = None) -> None:
        self._pieces = pieces
        self._model = read_pieces(pieces)
        self.bos_token_id: int = self._model.bos_id()
        self.eos_token_id: int = self._model.eos_id()
        self.unk_token_id: int = self._model.unk_id()
        self.pad_token_id = self.unk_token_id  # the official code pads with <unk>
        control = (self.bos_token_id, self.eos_token_id, self.unk_token_id)
        if min(control) < 0:
            raise ModelError("the tokenizer lacks <s>, </s> or <unk>; expected LLaMA's")
        self._control: dict[str, int] = {self._model.id_to_piece(i): i for i in control}
        self.added: dict[str, int] = {}
        for token, number in sorted((added or {}).items(), key=lambda item: item[1]):
            if self.add(token) != number:
                expected = self.token_id(token)
                raise ModelError(f"added token '{token}' has id {number}; expected {expected}")

    @classmethod
    def read(cls, directory: Path) -> LegacyTokenizer:
        """The tokenizer of a checkpoint directory.

        Raises:
            ModelError: a file is missing or damaged; the message names it.
        """
        path = directory / PIECES_FILE
        try:
            return cls(path.read_bytes(), read_added(directory / ADDED_FILE))
        except OSError as error:
            raise ModelError(
                f"cannot read '{path}': {error.strerror}; expected a sentencepiece model"
            ) from error
        except ModelError as error:
            raise ModelError(f"cannot use the tokenizer in '{directory}': {error}") from error

    def save(self, directory: Path) -> None:
        """Write what ``read`` reads.

        Raises:
            OutputError: the folder cannot be written to.
        """
        write_atomically(directory / PIECES_FILE, self._pieces)
        write_atomically(directory / ADDED_FILE, json.dumps(self.added, indent=2).encode())

    def __len__(self) -> int:
        return self._model.vocab_size() + len(self.added)

    def add(self, token: str) -> int:
        """The id of ``token``, which becomes an added token unless it is there already."""
        if token in self._control:
            return self._control[token]
        return self.added.setdefault(token, len(self))

    def token_id(self, token: str) -> int | None:
        """The id of an added or control token; None where there is no such token."""
        return (self._control | self.added).get(token)

    @property
    def seg_token_id(self) -> int:
        """The id of ``[SEG]``.

        Raises:
            ModelError: the tokenizer has no such token.
        """
        number = self.token_id(SEG_TOKEN)
        if number is None:
            raise ModelError(f"the tokenizer has no {SEG_TOKEN}; expected it among {ADDED_FILE}")
        return number

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Ids of ``text``, after a ``<s>`` unless ``bos`` is False."""
        ids = [self.bos_token_id] if bos else []
        for part in self._parts(text):
            number = self.token_id(part)
            ids += self._model.encode(part) if number is None else [number]
        return ids

    def _parts(self, text: str) -> list[str]:
        """``text`` cut at its tokens; white space beside added ones is dropped, and empty parts."""
        parts = re.split(self._token_pattern(), text)  # text, token, text, token, ..., text
        for place in range(1, len(parts), 2):
            if parts[place] in self.added:
                parts[place - 1] = parts[place - 1].rstrip()
                parts[place + 1] = parts[place + 1].lstrip()
        return [part for part in parts if part]

    def _token_pattern(self) -> str:
        tokens = sorted(self._control | self.added, key=len, reverse=True)
        return "(" + "|".join(map(re.escape, tokens)) + ")"

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of ``ids``: added tokens stand between single blanks.

        With ``skip_special`` the control tokens are left out; added tokens, ``[SEG]`` among them,
        stay.

        Raises:
            ModelError: there is no such id.
        """
        if skip_special:
            ids = [number for number in ids if number not in self._control.values()]
        names = {number: token for token, number in self.added.items()}
        texts: list[str] = []
        run: list[int] = []
        for number in ids:
            if number not in names:
                run.append(self._known(number))
                continue
            texts += [self._join(run)] if run else []
            texts.append(names[number])
            run = []
        return " ".join(texts + ([self._join(run)] if run else []))

    def _known(self, number: int) -> int:
        if not 0 <= number < self._model.vocab_size():
            raise ModelError(f"there is no token {number}; expected 0 to {len(self) - 1}")
        return number

    def _join(self, ids: Iterable[int]) -> str:
        """Pieces without added tokens; a control token has a blank before it, unless it follows
        another or stands first."""
        names = {number: token for token, number in self._control.items()}
        text, run, after_control = "", list[int](), False
        for place, number in enumerate(ids):
            if number not in names:
                run.append(number)
            else:
                text += "" if after_control or place == 0 else " "
                text += self._model.decode(run) + names[number]
                run = []
            after_control = number in names
        return text + self._model.decode(run)


def read_pieces(pieces: bytes) -> SentencePieceProcessor:
    """A sentencepiece model from its bytes.

    Raises:
        ModelError: the bytes are not one.
    """
    try:
        return SentencePieceProcessor(model_proto=pieces)
    except (RuntimeError, OSError, TypeError) as error:
        raise ModelError(f"{PIECES_FILE} is damaged; expected a sentencepiece model") from error


def read_added(path: Path) -> dict[str, int]:
    """``added_tokens.json``: token -> id; no file, no tokens.

    Raises:
        ModelError: the file is not such a table.
    """
    if not path.is_file():
        return {}
    try:
        added = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path.name} is not JSON; expected tokens and their ids") from error
    if not isinstance(added, dict) or not all(type(number) is int for number in added.values()):
        raise ModelError(f"{path.name} is no table; expected tokens and their ids")
    return added
