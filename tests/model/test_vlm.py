"""Vision-language models of transformers: pictures in their places, whatever stands beside them."""

import PIL.Image
import pytest
import torch
from torch import Tensor

from helpers.lively_model import picture
from helpers.parts import VLMS, decoder_fields, tiny_processor, vlm_fields
from lisa.errors import ModelError
from lisa.model.chat_templates import IMAGE_TOKEN_ID
from lisa.model.config import LisaConfig
from lisa.model.interfaces import PICTURE_SEGMENT
from lisa.model.processor import FullSizeProcessor
from lisa.model.vlm import (
    HfVlm,
    VisionInputs,
    join,
    put_picture,
    smolvlm_layout,
    stack_ragged,
    unread_id,
)

QUESTIONS = ["What is the cat?", "What is the left cat, the right cat or the a?"]
Side = tuple[HfVlm, FullSizeProcessor]


@pytest.fixture(scope="module", params=VLMS)
def side(request: pytest.FixtureRequest) -> Side:
    processor = tiny_processor(request.param, "sam")
    torch.manual_seed(0)
    vlm = HfVlm(processor.config).eval()
    for parameter in vlm.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.2)
    return vlm, processor


def kept(side: Side, *pictures: PIL.Image.Image) -> VisionInputs:
    vlm, processor = side
    return vlm.keep(processor.encode_pictures(pictures))


PICTURES = [picture(60, 36, seed=0), picture(40, 64, seed=1)]


@torch.no_grad()
def states(side: Side, rows: list[int], questions: list[str]) -> list[Tensor]:
    """The last hidden state of each question, read side by side."""
    vlm, processor = side
    ids = [processor.question_ids(question) for question in questions]
    reading = vlm.open(kept(side, *PICTURES), torch.tensor(rows), ids)
    return list(vlm.step(reading)[:, -1])


def test_rows_side_by_side_are_rows_alone(side: Side) -> None:
    """Pictures of two shapes, questions of two lengths."""
    together = states(side, [0, 1, 1], [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0]])
    alone = [
        states(side, [row], [question])[0]
        for row, question in ((0, QUESTIONS[0]), (1, QUESTIONS[1]), (1, QUESTIONS[0]))
    ]
    torch.testing.assert_close(torch.stack(together), torch.stack(alone), rtol=1e-3, atol=1e-3)


def test_picture_and_question_both_matter(side: Side) -> None:
    one, picture_changed, question_changed = states(
        side, [0, 1, 0], [QUESTIONS[0], QUESTIONS[0], QUESTIONS[0].replace("cat", "right")]
    )
    assert (one - picture_changed).abs().max() > 1e-3
    assert (one - question_changed).abs().max() > 1e-3


@torch.no_grad()
def test_the_cache_changes_nothing(side: Side) -> None:
    """A whole conversation as a batch, and the same one token by token."""
    vlm, processor = side
    rows = [processor.voice.row(question, "It is the cat [SEG]") for question in QUESTIONS]
    pictures = processor.encode_pictures(PICTURES)
    batch = processor.encode_rows(pictures, list(enumerate(rows)))
    whole = vlm.hidden_states(batch)
    for number, (row, question) in enumerate(zip(rows, QUESTIONS, strict=True)):
        asked = processor.question_ids(question)
        reading = vlm.open(vlm.keep(pictures), torch.tensor([number]), [asked])
        seen = [vlm.step(reading)[0]]
        for token in row.ids[len(asked) :]:
            reading = reading.then([token])
            seen.append(vlm.step(reading)[0])
        alone = torch.cat(seen)
        torch.testing.assert_close(alone, whole[number, : len(alone)], rtol=1e-3, atol=1e-3)


def test_as_many_places_as_features(side: Side) -> None:
    """The model itself counts; here, that the segments say where the picture is."""
    _, processor = side
    pictures = processor.encode_pictures(PICTURES)
    row = processor.voice.row(QUESTIONS[0], "It is the cat")
    batch = processor.encode_rows(pictures, [(0, row), (1, row)])
    assert pictures.picture_ids is not None
    for number, ids in enumerate(pictures.picture_ids):
        assert int((batch.segments[number] == PICTURE_SEGMENT).sum()) == len(ids)


def test_the_pictures_token_needs_no_row() -> None:
    """Official checkpoints have none: the code writes -200."""
    fields = vlm_fields("llava")
    fields["image_token_index"] = 64
    config = LisaConfig.from_parts(fields, decoder_fields("sam"), seg_token_id=63)
    embeddings = HfVlm(config).model.get_input_embeddings()
    assert embeddings(torch.tensor([64])).shape == (1, 32)


def test_a_linear_projector() -> None:
    config = LisaConfig.from_parts(vlm_fields("llava"), decoder_fields("sam"), projector="linear")
    projector = HfVlm(config).model.model.multi_modal_projector
    assert {name: tuple(v.shape) for name, v in projector.named_parameters()} == {
        "weight": (32, 32),
        "bias": (32,),
    }


@pytest.mark.parametrize(("conversation", "unread"), [("llava_v1", 0), ("chat", -1)])
def test_official_models_do_not_read_padding_by_its_value(conversation: str, unread: int) -> None:
    config = LisaConfig.from_parts(
        vlm_fields("llava"), decoder_fields("sam"), conversation=conversation
    )
    assert unread_id(config) == unread


def test_tiles_of_smolvlm_are_named() -> None:
    """As its own processor writes them: two tiles, a line break, an empty line, the whole."""
    inputs = {"rows": torch.tensor([[1]]), "cols": torch.tensor([[2]])}
    config = LisaConfig.from_parts(vlm_fields("smolvlm"), decoder_fields("sam")).vlm_config()
    written = "".join("." * p if isinstance(p, int) else p for p in smolvlm_layout(inputs, config))
    fake = "<fake_token_around_image>"
    tiles = f"{fake}<row_1_col_1>....{fake}<row_1_col_2>...."
    assert written == f"{tiles}\n\n{fake}<global-img>....{fake}"


def test_a_picture_takes_its_place() -> None:
    assert put_picture([1, IMAGE_TOKEN_ID, 2], [7, 7, 8]) == [1, 7, 7, 8, 2]


def test_inputs_of_several_pictures() -> None:
    joined = join(
        [
            {"a": torch.ones(1, 2), "b": torch.ones(2)},
            {"a": 2 * torch.ones(2, 1), "b": torch.zeros(1)},
        ]
    )
    assert joined["a"].tolist() == [[1, 1], [2, 0], [2, 0]]
    assert joined["b"].tolist() == [1, 1, 0]
    assert stack_ragged([torch.ones(1, 1, 2), torch.ones(1, 2, 1)]).sum() == 4


def test_an_unknown_family_is_named() -> None:
    config = LisaConfig.from_parts(vlm_fields("llava"), decoder_fields("sam"))
    config.vlm = {"model_type": "llama"}
    with pytest.raises(ModelError, match=r"vlm.model_type is 'llama'; expected llava"):
        HfVlm(config)


def test_a_vocabulary_without_room_is_refused() -> None:
    config = LisaConfig.from_parts(vlm_fields("llava"), decoder_fields("sam"))
    config.seg_token_id = 500
    with pytest.raises(ModelError, match="seg_token_id is 500; expected less than 65"):
        HfVlm(config)
