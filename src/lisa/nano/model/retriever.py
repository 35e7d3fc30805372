"""``Recall``: which known thing a question is about, before anybody looks at the picture.

The lowest layers of the language model read the question by itself; what they make of it is pooled
into a query, and what they make of a name into that name's key. A question is near the names that
answer it. Beside that, the questions that were read in training are remembered, and those most like
the new one vote for what they were about (``Memory``). Both are then weighed with what the eyes see
and with what the language model would say (``weigh``).

This file knows states, names by number, and how sure the eyes are. It refuses to know text,
pixels, and what is said in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisa.nano.model.decoder import location_logits

SIZE, WIDTH, HEADS, HIDDEN = 256, 128, 8, 512
DROPOUT = 0.3
SHORTLISTED = 12  # names that go best with what is recalled and seen are possible answers
SEEN = 2  # numbers that the eyes give about each name, as ``look`` has them
LEAST_SEEN = 1e-6
LEAST_GAIN = 1e-6
NEAR = 0.05  # difference in likeness that makes a remembered text e times weightier
LEAST_VOTE = 3e-7  # that every name has anyway: below it texts are not alike at all
LEAST_SPREAD = 1e-6  # of the greatest variance: texts are read in float16, less is rounding
# Of what is recalled, remembered, seen (two), and said or begun, to begin with.
UNFITTED = (1.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Evidence:
    """What is known about each of N questions before it is answered."""

    recalled: Tensor  # log-probabilities [N, K + 1], as ``Recall.forward`` gives them
    remembered: Tensor  # logarithms of votes [N, K], as ``Memory.forward`` gives them
    seen: Tensor  # [N, K, SEEN] in each question's picture, as ``Recall.look`` gives it
    begun: Tensor  # [N, K] the language model's log-probability of beginning to say each name
    names: Tensor  # [N, R] the numbers of the possible answers, as ``Recall.shortlist`` gives them
    said: Tensor  # [N, R] the language model's log-probability of saying each of them

    @classmethod
    def join(cls, parts: Sequence[Evidence]) -> Evidence:
        """Of all questions, in order."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def of(self, some: Tensor) -> Evidence:
        """Of some of the questions: an index or a mask [N]."""
        return Evidence(*(getattr(self, f.name)[some] for f in fields(self)))


@dataclass(frozen=True)
class Choice:
    """What a question is answered with."""

    name: int  # its number
    certainty: float  # expected overlap (IoU) of what bears that name and what is meant, 0 to 1


class StatePool(nn.Module):
    """States [N, T, H] of a text -> one vector [N, SIZE] of length 1, by attention pooling.

    Units are dropped in training mode only.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.value = nn.Linear(hidden_size, WIDTH)
        self.attention = nn.Sequential(
            nn.Linear(hidden_size, WIDTH), nn.GELU(), nn.Linear(WIDTH, HEADS)
        )
        self.out = nn.Sequential(
            nn.LayerNorm(WIDTH * HEADS),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH * HEADS, HIDDEN),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, SIZE),
        )

    def forward(self, states: Tensor, known: Tensor) -> Tensor:
        """``known`` [N, T] says which states belong to the text; at least one of each does."""
        states = self.norm(states)
        looks = self.attention(states).masked_fill(~known[..., None], -torch.inf).softmax(1)
        pooled = torch.einsum("nth,ntd->nhd", looks, self.value(states))
        return F.normalize(self.out(pooled.flatten(1)), dim=-1)


class Memory(nn.Module):
    """Texts that were read before, and which name each of them is about: the nearest ones vote.

    A text is the mean of its states, whitened (every direction counts the same) and of length 1; a
    remembered one has a vote of exp((cosine - 1) / NEAR), a kernel regression (Nadaraya, 1964).

    Args:
        hidden_size: of the language model, H.
        names: K.
        texts: how many are remembered, M.
    """

    centre: Tensor  # [H]
    axes: Tensor  # [H, D] of the greatest variance, each by its spread
    texts: Tensor  # [M, D] of length 1
    about: Tensor  # [M] the number of a name

    def __init__(self, hidden_size: int, names: int, texts: int) -> None:
        super().__init__()
        self.names, axes = names, min(SIZE, hidden_size)
        self.register_buffer("centre", torch.zeros(hidden_size))
        self.register_buffer("axes", torch.zeros(hidden_size, axes))
        self.register_buffer("texts", torch.zeros(texts, axes))
        self.register_buffer("about", torch.zeros(texts, dtype=torch.long))

    def place(self, means: Tensor) -> Tensor:
        """Means of states [N, H] -> where the texts are among others, [N, D] of length 1."""
        return F.normalize((means - self.centre) @ self.axes, dim=-1)

    def forward(self, states: Tensor, known: Tensor) -> Tensor:
        """Logarithms of the votes [N, K] for each name; arguments as of ``Recall``."""
        likeness = self.place(mean_states(states, known)) @ self.texts.T
        votes = likeness.new_zeros(len(states), self.names)
        votes.index_add_(1, self.about, ((likeness - 1) / NEAR).exp())
        return (votes + LEAST_VOTE).log()

    @torch.no_grad()
    def learn(self, means: Tensor, about: Tensor) -> None:
        """Remember these texts and no others.

        Args:
            means: [M, H] of their states.
            about: [M] the number of the name that each is about.
        """
        self.centre = means.mean(0)
        centred = (means - self.centre).double()
        variances, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(means)))
        greatest, index = variances.topk(self.axes.shape[1])
        scales = torch.where(greatest > LEAST_SPREAD * greatest[0], greatest.rsqrt(), 0.0)
        self.axes = (axes[:, index] * scales).to(means)
        self.texts, self.about = self.place(means), about


def mean_states(states: Tensor, known: Tensor) -> Tensor:
    """The mean [N, H] of those states [N, T, H] that belong to a text (``known`` [N, T])."""
    return (states * known[..., None]).sum(1) / known.sum(1, keepdim=True)


class Recall(nn.Module):
    """A question -> which of K names it is about, and which of them the picture shows.

    Args:
        hidden_size: of the language model.
        prompt_size: of the mask decoder.
        names: K.
        texts: how many are remembered.
    """

    keys: Tensor  # [K, SIZE] of the names ...
    prompts: Tensor  # [K, P] ... and what the eyes look for; both are written when training ends

    def __init__(self, hidden_size: int, prompt_size: int, names: int, texts: int = 0) -> None:
        super().__init__()
        self.memory = Memory(hidden_size, names, texts)
        self.question, self.name = StatePool(hidden_size), StatePool(hidden_size)
        self.freely = nn.Parameter(torch.randn(SIZE) / SIZE**0.5)
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.possible = nn.Linear(len(UNFITTED), 1)  # may this name be the answer?
        self.answer = nn.Linear(len(UNFITTED), 1)  # is it?
        with torch.no_grad():
            self.possible.weight.copy_(torch.tensor([UNFITTED]))
            self.answer.weight.copy_(torch.tensor([UNFITTED]))
        self.register_buffer("keys", torch.zeros(names, SIZE))
        self.register_buffer("prompts", torch.zeros(names, prompt_size))

    def forward(self, states: Tensor, known: Tensor, keys: Tensor | None = None) -> Tensor:
        """Log-probabilities [N, K + 1] of the names; the last one: of none, answer freely.

        Args:
            states: [N, T, H] of the questions, from the language model's lowest layers.
            known: bool [N, T].
            keys: of other names than the model's.
        """
        keys = self.keys if keys is None else keys
        all_keys = torch.cat([keys, F.normalize(self.freely, dim=0)[None]])
        logits = self.question(states, known) @ all_keys.T * self.log_scale.exp()
        return logits.log_softmax(-1)

    def look(self, keys: Tensor) -> Tensor:
        """What the eyes say about each name, [B, K, SEEN], from their map ``keys`` [B, P, h, w].

        The logit of "here" where it is highest, and the same for the name in competition with all
        others, as a log-probability.
        """
        here = location_logits(keys, self.prompts.expand(len(keys), -1, -1))
        rivals = (here.sigmoid() * here.softmax(1)).flatten(2).amax(2)
        return torch.stack([here.flatten(2).amax(2), rivals.clamp(min=LEAST_SEEN).log()], -1)

    def prescore(self, recalled: Tensor, remembered: Tensor, seen: Tensor, begun: Tensor) -> Tensor:
        """How good each name is before it is said to the end, [N, K].

        Args:
            recalled: [N, K + 1], as ``forward`` gives it.
            remembered: [N, K], as ``memory`` gives it.
            seen: [N, K, SEEN], as ``look`` gives it.
            begun: [N, K], as ``Evidence`` has it.
        """
        alone = torch.stack([recalled[:, :-1], remembered], -1)
        return self.possible(torch.cat([alone, seen, begun[..., None]], -1))[..., 0]

    def shortlist(
        self, recalled: Tensor, remembered: Tensor, seen: Tensor, begun: Tensor
    ) -> Tensor:
        """The numbers [N, R] of the names that are possible answers, the best first."""
        good = self.prescore(recalled, remembered, seen, begun)
        return good.topk(min(SHORTLISTED, good.shape[1])).indices

    def weigh(self, evidence: Evidence) -> Tensor:
        """How good each possible answer is, [N, R]."""
        names = evidence.names
        alone = [facts.gather(1, names) for facts in (evidence.recalled, evidence.remembered)]
        seen = evidence.seen.gather(1, names[..., None].expand(-1, -1, SEEN))
        facts = torch.cat([torch.stack(alone, -1), seen, evidence.said[..., None]], -1)
        return self.answer(facts)[..., 0]

    def choose(self, evidence: Evidence, gains: Tensor | None = None) -> list[Choice | None]:
        """The answer to each question; None where the language model answers freely.

        The one whose mask is expected to be best (minimum Bayes risk): two names for one thing
        support each other.

        Args:
            evidence: of N questions.
            gains: [N, R, R] how good the mask of each possible answer is if another one is meant:
                its IoU with that one's mask, times the IoU that is expected of it anyway. None:
                names have nothing in common.
        """
        freely = evidence.recalled.argmax(1) == evidence.recalled.shape[1] - 1
        chances = self.weigh(evidence).softmax(1)
        if gains is None:
            gains = torch.eye(chances.shape[1], device=chances.device).expand(len(chances), -1, -1)
        expected, best = torch.einsum("nij,nj->ni", gains, chances).max(1, keepdim=True)
        certain = expected / gains.diagonal(dim1=1, dim2=2).gather(1, best).clamp(min=LEAST_GAIN)
        names = evidence.names.gather(1, best)
        rows = zip(freely.tolist(), names[:, 0].tolist(), certain[:, 0].tolist(), strict=True)
        return [None if free else Choice(name, certainty) for free, name, certainty in rows]
