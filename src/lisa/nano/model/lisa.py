"""The embedded model: the paper's, of small parts; it finds things by name alone, too.

This file knows which parts it has; it refuses to know what is in them.
"""

from __future__ import annotations

from torch import Tensor

from lisa.model.config import LisaConfig
from lisa.model.interfaces import Batch, DecodedMasks
from lisa.model.lisa import LisaModel
from lisa.nano.model.decoder import NanoDecoder
from lisa.nano.model.vlm import NanoVlm

# One matrix under two names, where the configuration says so: the copy and its source.
TIED_WEIGHTS = {"vlm.language.lm_head.weight": "vlm.language.model.embed_tokens.weight"}


class NanoModel(LisaModel):
    """``lisa-nano`` of the given configuration, with random weights.

    Raises:
        ModelError: ``[SEG]`` is not the token after the language model's own.
    """

    _tied_weights_keys = TIED_WEIGHTS

    def __init__(self, config: LisaConfig) -> None:
        decoder = NanoDecoder(prompt_size=config.prompt_size, **config.decoder)
        super().__init__(config, NanoVlm(config), decoder)

    def segment_phrases(self, batch: Batch) -> DecodedMasks:
        """Masks of things by name alone, without the language model's layers.

        How the eyes are trained; ``batch`` holds targets.
        """
        assert batch.phrase_ids is not None and batch.image_index is not None
        features = self.decoder.encode_image(batch.pixel_values)
        return self.decoder.decode(
            features, self.phrase_prompts(batch.phrase_ids), batch.image_index
        )

    def phrase_prompts(self, phrase_ids: Tensor) -> Tensor:
        """Prompts [N, P] of phrases [N, L] padded with -1."""
        return self.vlm.projector.name_prompt(self.vlm.name_embeddings(phrase_ids))
