"""A LLaMA tokenizer of a few hundred pieces, trained on the spot, with LISA's extra tokens."""

import functools
import io

from sentencepiece import SentencePieceTrainer

from lisa.model.llama_tokenizer import LegacyTokenizer

SENTENCES = [
    "Please segment the umbrella in this image.",
    "What is the cup in this image? Please respond with segmentation mask.",
    "Sure, it is the cat. The dog sits here, and a thermos keeps coffee warm!",
    "USER: hi ASSISTANT: A chat between a curious human and an artificial intelligence assistant.",
]


@functools.cache
def pieces() -> bytes:
    """The bytes of a ``tokenizer.model`` of LLaMA's kind: BPE, bytes for rare letters."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def llama_tokenizer(*added: str) -> LegacyTokenizer:
    """That tokenizer, with ``added`` tokens, or those that LISA adds."""
    tokenizer = LegacyTokenizer(pieces())
    for token in added or ("[SEG]", "<im_start>", "<im_end>"):
        tokenizer.add(token)
    return tokenizer
