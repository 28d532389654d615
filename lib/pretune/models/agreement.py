"""Whether what we read off a model is what the model itself says.

Scoring and training apply the head to hidden states where it is needed, with a shared prefix,
masks and positions of their own. That is not all that some architectures do: they scale or cap
logits after the head, attend in a way of their own, or leave something to chance in training.
Here a few short sequences go both ways, at the cost of five short passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pretune.models import scoring
from pretune.models.gradients import collate, counted_hidden
from pretune.tasks.prompts import Request, Row

# where the completion of each sequence begins: contexts of two lengths, two completions each
BORDERS = (9, 9, 11, 11)
ROOT, WHOLE = 7, 13  # tokens that all sequences share, and of each
WINDOW = 6  # tokens of a sliding window, so that the sequences are longer
KINDS = {"full_attention", "sliding_attention"}  # of layers, that masks are made for


def difference(model) -> float:
    """The largest difference, in nats a token, between log-probabilities that are read here and
    those of `model(ids)`.

    `model` is in evaluation mode, in float32. Raises ValueError for layers of an unknown kind
    and for log-probabilities that are not finite, and what the model raises when it is given a
    prefix, masks or a cache that it cannot use.
    """
    config = model.config.get_text_config()
    if unknown := set(getattr(config, "layer_types", None) or ()) - KINDS:
        raise ValueError(
            f"its layers are of the kind {', '.join(sorted(unknown))}; known are "
            f"{', '.join(sorted(KINDS))}"
        )
    table = _sequences(model.get_input_embeddings().weight.shape[0])
    with torch.no_grad(), _short_window(config):
        plain = _plain(model, table)
        if not np.isfinite(plain).all():
            raise ValueError("its own log-probabilities are not finite")
        apart = np.concatenate([_scored(model, table, plain), _trained(model, table, plain)])
    return float(np.abs(apart).max())


def _sequences(vocabulary: int) -> np.ndarray:
    """Token ids (sequences, tokens), none from the ends of the vocabulary, where tokens with a
    meaning of their own are.
    """
    table = np.random.default_rng(0).integers(
        vocabulary // 8, vocabulary - vocabulary // 8, (len(BORDERS), WHOLE)
    )
    table[:, :ROOT] = table[0, :ROOT]
    table[1, : BORDERS[1]], table[3, : BORDERS[3]] = table[0, : BORDERS[1]], table[2, : BORDERS[3]]
    return table


def _plain(model, table: np.ndarray) -> np.ndarray:
    """Log-probability of every token but the first (sequences, tokens - 1), with nothing shared,
    masked or padded.
    """
    ids = torch.from_numpy(table).to(model.device)
    found = model(ids, use_cache=False).logits.float().log_softmax(-1)[:, :-1]
    return found.gather(2, ids[:, 1:, None])[:, :, 0].cpu().numpy()


def _scored(model, table: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """By how much completions of two tokens are scored otherwise, a token."""
    requests = [
        Request(ids[: border + 2].astype(np.int32), border)
        for ids, border in zip(table, BORDERS, strict=True)
    ]
    found = scoring.log_likelihoods(model, [requests[:2], requests[2:]])
    wanted = [
        line[border - 1 : border + 1].sum() for line, border in zip(plain, BORDERS, strict=True)
    ]
    return (np.concatenate(found) - wanted) / 2


def _trained(model, table: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """By how much the tokens of a padded batch are predicted otherwise in training, where
    nothing may be left to chance.
    """
    rows = [
        Row(ids[: border + 2], np.arange(border + 2) > 0)
        for ids, border in zip(table, BORDERS, strict=True)
    ]
    ids, counted, attention = collate(rows, model.device)
    model.train()
    try:
        hidden = counted_hidden(model, ids, counted, attention)
    finally:
        model.eval()
    logits = model.get_output_embeddings()(hidden).float()
    found = logits.log_softmax(-1).gather(1, ids[counted][:, None])[:, 0]
    wanted = [line[: border + 1] for line, border in zip(plain, BORDERS, strict=True)]
    return found.cpu().numpy() - np.concatenate(wanted)


@contextmanager
def _short_window(config) -> Iterator[None]:
    """Let layers that attend to a window only see less than the sequences are long."""
    window = getattr(config, "sliding_window", None)
    if window:
        config.sliding_window = WINDOW
    try:
        yield
    finally:
        if window:
            config.sliding_window = window
