"""Scoring a model: log-likelihoods of completions, and generation, greedy or drawn.

- How many sequences are read at once: module `reading`. Prompts to generate from are read in parts
  of like lengths, which are joined before the first token is written: to read, few rows without
  padding are fast, and to write, many.
- On out-of-memory a batch is halved.
- All in float32: values agree with scoring each sequence alone within 1e-4 nats a token,
  whatever the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch

from pretune.models import memory, prefix
from pretune.models.reading import (
    ScoringFailed,
    State,
    batches,
    read,
    read_root,
    root_of,
    shared_start,
    tail_scores,
)
from pretune.tasks.prompts import Request

log = logging.getLogger(__name__)


BATCH_TOKENS = 16_384  # tokens, cached ones included, that one forward pass may hold


@dataclass(frozen=True)
class Generation:
    """Output up to a newline. `ids` are its tokens with the one that ended it, `length`
    counts them, `stop` says what ended it: newline, end or length.

    `gold` is the summed log-probability of the completion that was wanted, in nats; NaN where
    none was given. `is_sound` says whether every token was chosen by numbers.
    """

    text: str
    length: int
    stop: str
    gold: float
    ids: tuple[int, ...] = ()
    is_sound: bool = True


@torch.inference_mode()
@prefix.attending
def log_likelihoods(
    model,
    items: Sequence[Sequence[Request]],
    batch_tokens: int = BATCH_TOKENS,
    after_batch: Callable[[int], None] = lambda _: None,
) -> list[list[float]]:
    """Summed log-probability, in nats, of every completion of every item.

    `items` holds per item its requests, which differ in the completion. `after_batch` is told
    how many items are done. Raises ScoringFailed when a single item does not fit the memory.
    """
    contexts = [shared_start(requests) for requests in items]
    firsts = [requests[0].ids[:size] for requests, size in zip(items, contexts, strict=True)]
    root = root_of(firsts) if prefix.can_share(model) else 0
    cache = read_root(model, items[0][0].ids[:root])
    totals: list[list[float]] = [[] for _ in items]

    def score(batch: list[int], _: int) -> None:
        starts = [items[i][0].ids[root : contexts[i]] for i in batch]
        state = State(model, cache, len(starts))
        first = state.extend(starts).log_softmax(-1)
        tails = [_tails(items[i], contexts[i]) for i in batch]
        found = tail_scores(state, first, tails)
        for i, scores in zip(batch, found, strict=True):
            skip = [request.start - contexts[i] for request in items[i]]
            totals[i] = [
                float(score[drop:].sum()) for score, drop in zip(scores, skip, strict=True)
            ]
        after_batch(len(batch))

    sizes = [_size(requests) for requests in items]
    in_batches(sizes, batch_tokens, 0, model.device, score)
    return totals


def _tails(requests: Sequence[Request], start: int) -> list[np.ndarray]:
    """What the requests of one item hold after the first `start` tokens."""
    return [request.ids[start:] for request in requests]


def _size(requests: Sequence[Request]) -> int:
    """Tokens of the requests of one item, the shorter ones padded."""
    return max(len(request.ids) for request in requests) * len(requests)


@torch.inference_mode()
@prefix.attending
def generate(
    model,
    tokenizer,
    prompts: Sequence[np.ndarray],
    new_tokens: int,
    golds: Sequence[np.ndarray] = (),
    newline: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    after_batch: Callable[[int], None] = lambda _: None,
    temperature: float = 0.0,
) -> list[Generation]:
    """Continuation of each prompt (token ids), stopped at the end token, at `new_tokens`, and,
    where `newline` is True, at a newline. With `golds`, one completion a prompt, the prompt is read
    once for both. Greedy, or at a `temperature` drawn: the same each time, in the same batches.
    Raises ScoringFailed.
    """
    draw = torch.Generator(model.device).manual_seed(0) if temperature else None
    stops = _newline_tokens(tokenizer, model.config.vocab_size).to(model.device) & newline
    root = root_of(prompts) if prefix.can_share(model) else 0
    cache = read_root(model, prompts[0][:root])
    made: list[Generation | None] = [None] * len(prompts)

    def write(batch: list[int], budget: int) -> None:
        contexts = [prompts[i][root:] for i in batch]
        tails = [golds[i] for i in batch] if golds else []
        state, logits, found = read(model, cache, contexts, tails, new_tokens, budget)
        choose = partial(_chosen, temperature=temperature, draw=draw)
        tokens, sound = _decode(state, logits, stops, tokenizer.eos_token_id, new_tokens, choose)
        for i, row, gold, is_sound in zip(batch, tokens, found, sound, strict=True):
            made[i] = replace(_finish(tokenizer, row, stops, gold), is_sound=is_sound)
        after_batch(len(batch))

    sizes = [len(prompt) - root + new_tokens for prompt in prompts]
    in_batches(sizes, batch_tokens, root, model.device, write)
    return made


def in_batches(
    sizes: Sequence[int], budget: int, shared: int, device, work: Callable[[list[int], int], None]
) -> None:
    """Do `work` on all items, of `sizes` tokens after `shared` ones, in batches of at most
    `budget` tokens. On out-of-memory the budget is halved and the batch cut to it. Raises
    ScoringFailed when a single item does not fit.
    """
    waiting = list(batches(sizes, budget))[::-1]
    while waiting:
        batch = waiting.pop()
        tokens, half = sizes[batch[0]] * len(batch), len(batch) // 2
        if half and tokens > budget:
            waiting += [batch[half:], batch[:half]]
            continue
        try:
            work(batch, budget)
            continue
        except RuntimeError as error:
            if not memory.ran_out(error):
                raise
            if not half:
                raise ScoringFailed(
                    f"out of memory with a single item of {tokens + shared} tokens on {device}"
                ) from error
        memory.hand_back()
        budget = tokens // 2
        waiting.append(batch)
        log.warning(
            "out of memory on %s: scored in batches of at most %d tokens from here on",
            device,
            budget,
        )


def _chosen(logits: torch.Tensor, temperature: float, draw: torch.Generator | None) -> torch.Tensor:
    """The next token of each row: the likeliest, or one drawn; any where logits are no numbers."""
    if draw is None:
        return logits.argmax(-1)
    told = torch.where(_are_numbers(logits)[:, None], logits, 0.0)
    return torch.multinomial((told / temperature).softmax(-1), 1, generator=draw)[:, 0]


def _are_numbers(logits: torch.Tensor) -> torch.Tensor:
    """(rows,) Whether the largest of each row is finite."""
    return logits.amax(-1).isfinite()


def _decode(
    state: State,
    logits: torch.Tensor,
    newline: torch.Tensor,
    end: int,
    new_tokens: int,
    choose: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[list[list[int]], list[bool]]:
    """Tokens of each row as `choose` takes them, up to and with the one that ends it, and whether
    all of them were chosen by numbers. Rows that ended leave when they are a quarter of the
    batch, since to go on without them copies all that the others have read.
    """
    made: list[list[int]] = [[] for _ in range(len(logits))]
    rows = torch.arange(len(logits), device=logits.device)
    going = torch.ones_like(logits[:, 0], dtype=torch.bool)
    sound = torch.ones_like(going)
    for _ in range(new_tokens):
        chosen = choose(logits)
        sound[rows] &= _are_numbers(logits) | ~going
        for row, token, wanted in zip(rows.tolist(), chosen.tolist(), going.tolist(), strict=True):
            made[row] += [token] * wanted
        going &= ~(newline[chosen] | (chosen == end))
        if not going.any():
            break
        if going.float().mean() <= 0.75:
            state.select(going.nonzero()[:, 0])
            rows, chosen, going = rows[going], chosen[going], going[going]
        one = torch.ones(len(chosen), 1, dtype=torch.bool, device=chosen.device)
        logits = state.head(state.feed(chosen[:, None], one)[:, 0])
    return made, sound.tolist()


def _finish(tokenizer, tokens: list[int], newline: torch.Tensor, gold: float) -> Generation:
    stop = "length"
    if tokens[-1] == tokenizer.eos_token_id:
        stop = "end"
    elif newline[tokens[-1]]:
        stop = "newline"
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    text = text.split("\n")[0].strip() if newline.any() else text.strip()
    return Generation(text, len(tokens), stop, gold, tuple(tokens))


@cache
def _newline_tokens(tokenizer, vocabulary: int) -> torch.Tensor:
    """(vocabulary,) True for tokens whose text holds a newline. Decoding every token takes a
    while: once a tokenizer.
    """
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    mask = torch.zeros(vocabulary, dtype=torch.bool)
    mask[[token for token, text in enumerate(texts) if "\n" in text]] = True
    return mask
