"""From examples to token sequences: the few-shot prefix, the completion's span, and what fits the
context.

One function, `split`, decides where a completion begins, for training and for scoring alike. It
tokenises prompt and completion together and reads the border off the character offsets, so it
holds for any fast tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pretune.tasks.example import Example

KEPT = 2**15  # sequences that are not tokenised anew
FITTING = 0.95  # share of items that must fit the context before a number of shots is used


@dataclass(frozen=True)
class Row:
    """`ids` (length,) token ids; `counted` (length,) True where the loss counts the token. The
    first never counts. `is_wrong`: whether its answer was made wrong on purpose.

    `rival`: another that this one is preferred to; `lead`: how much likelier than that it was
    before, in nats.
    """

    ids: np.ndarray
    counted: np.ndarray
    is_wrong: bool = False
    rival: Row | None = None
    lead: float = 0.0

    @property
    def tokens(self) -> int:
        """Of both."""
        return len(self.ids) + (self.rival.tokens if self.rival else 0)

    @property
    def longest(self) -> int:
        """Tokens of the longer of both."""
        return max(len(self.ids), self.rival.longest if self.rival else 0)

    def cut(self, longest: int) -> Row:
        """The same with no more tokens than `longest`."""
        rival = self.rival.cut(longest) if self.rival else None
        return replace(self, ids=self.ids[:longest], counted=self.counted[:longest], rival=rival)


@dataclass(frozen=True)
class Request:
    """A full sequence: `ids` (length,) of prompt and completion; the completion begins at token
    `start`.
    """

    ids: np.ndarray
    start: int


@dataclass(frozen=True)
class Layout:
    """How a dataset fits the context: the prefix of `shots` examples, which items fit, how many
    tokens each needs.
    """

    prefix: str
    shots: int
    kept: list[int]
    left_out: list[int]
    needs: list[int]


@lru_cache(maxsize=KEPT)
def split(tokenizer, prompt: str, completion: str) -> Request:
    """Tokens of prompt and completion; a token that reaches into the completion belongs to it.
    Kept for the next cell, which asks the same of another checkpoint or recipe.
    """
    coded = tokenizer(prompt + completion, return_offsets_mapping=True)
    ends = np.array([end for _, end in coded["offset_mapping"]])
    return Request(np.array(coded["input_ids"], dtype=np.int32), int(np.argmax(ends > len(prompt))))


def requests(tokenizer, prefix: str, items: list[Example]) -> list[list[Request]]:
    """For every item one sequence a completion, each after `prefix` and the item's prompt."""
    found = []
    for item in items:
        found.append([split(tokenizer, prefix + item.prompt, choice) for choice in item.choices])
    return found


def lengths(item: Example, several: list[Request]) -> dict[str, list[int]]:
    """Tokens and characters of the completions of an item, as measures record them."""
    tokens = [len(one.ids) - one.start for one in several]
    characters = [len(choice.strip()) for choice in item.choices]
    return {"choice_tokens": tokens, "choice_characters": characters}


def ids_of(tokenizer, text: str, begins: bool = True) -> np.ndarray:
    """Tokens of `text`; where it `begins` a sequence, with whatever the tokenizer puts first."""
    return np.array(tokenizer(text, add_special_tokens=begins)["input_ids"], dtype=np.int32)


def lay_out(
    tokenizer,
    prefix: str,
    shots: list[Example],
    end: str,
    items: list[Example],
    context: int,
    new_tokens: int,
    writes: bool = False,
) -> Layout:
    """The largest number of `shots` at which 95 % of `items` fit `context` tokens, and which of
    them do.

    `prefix` stands before the shots, `end` after each. An item needs its prompt and its longest
    completion, or `new_tokens` where an answer is written: by a measure that `writes`, and where
    there is one completion only.
    """
    needs = np.array([_need(tokenizer, item, new_tokens, writes) for item in items])
    for count in range(len(shots), -1, -1):
        before = prefix + "".join(f"{shot.prompt}{shot.completion}{end}" for shot in shots[:count])
        total = needs + len(tokenizer(before)["input_ids"])
        fits = total <= context
        if fits.mean() >= FITTING or count == 0:
            return Layout(
                before,
                count,
                np.flatnonzero(fits).tolist(),
                np.flatnonzero(~fits).tolist(),
                total.tolist(),
            )
    raise AssertionError("unreachable: no shots is always tried")


def _need(tokenizer, item: Example, new_tokens: int, writes: bool) -> int:
    """Tokens from the item's first to the last that may follow it."""
    read = [split(tokenizer, item.prompt, choice) for choice in item.choices]
    longest = max(len(one.ids) for one in read)
    written = writes or len(read) == 1
    return max(longest, max(one.start for one in read) + new_tokens) if written else longest
