"""How far tuning moved the distribution over the next token: on the tuned model's own greedy
answer, which the untuned one would have had to continue (Ghosh et al., arXiv 2402.05119; Lin et
al., arXiv 2312.01552), and on the gold answer; of text, on the text.

Positions of the own answer come first in every list, `own` of them, then those of the gold one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from pretune.measures import generation
from pretune.measures.base import Asked, Measure, Measured, Subject
from pretune.tasks import prompts
from pretune.tasks.prompts import Request

NATS = ("tuned_log_probability", "base_log_probability", "kl_tuned_base", "kl_base_tuned")
NATS += ("tuned_entropy", "base_entropy")
RANKS = ("tuned_rank", "base_rank")


class Divergence(Measure):
    name = "divergence"
    # an answer is written once, and both are read by two models
    reads = 3.0
    generates = True
    holds_base = True
    columns = {
        "own": pa.int32(),  # positions of the own answer, the token that ends it among them
        "pieces": pa.list_(pa.string()),  # what stands at each position; nothing is an end
        "base_pieces": pa.list_(pa.string()),  # what base finds likeliest there
        **{name: pa.list_(pa.float32()) for name in NATS},
        **{name: pa.list_(pa.int32()) for name in RANKS},
        "weight_change": pa.float64(),  # norm of the change over that of the weights, of the model
    }

    def rows(self, subject: Subject, asked: Asked) -> Iterator[Measured]:
        from pretune.models import comparing

        requests, outputs = _answers(subject, asked)
        tables = comparing.compared(subject.network, subject.base(), requests)
        moved = comparing.weight_change(subject.network, subject.base())
        for some, both, output in zip(requests, tables, outputs, strict=True):
            table = np.concatenate(both, axis=1)
            own = len(some[0].ids) - some[0].start if output is not None else 0
            values = {"own": own, "weight_change": moved, **_values(subject, some, table)}
            yield Measured(values, output, sum(len(one.ids) for one in some))

    def score(self, rows: pd.DataFrame, normalisation: str) -> pd.DataFrame:
        """The mean over positions of KL(tuned, base), nats; of an own answer where there is one."""
        pairs = zip(rows["kl_tuned_base"], rows["own"], strict=True)
        means = [float(np.mean(some[:own] if own else some)) for some, own in pairs]
        return pd.DataFrame({"prediction": -1, "score": means, "baseline": 0.0})


def _answers(subject: Subject, asked: Asked) -> tuple[list[list[Request]], list[str | None]]:
    """Of every item the sequences that are read, own answer before gold, and the own one as text;
    of text the text alone.
    """
    from pretune.models import scoring

    made = prompts.requests(subject.tokenizer, asked.prefix, asked.examples)
    right = [some[one.gold] for some, one in zip(made, asked.examples, strict=True)]
    if asked.dataset.kind == "text":
        return [[one] for one in right], [None] * len(right)
    starts, golds = generation.parts(subject, asked, right)
    newline = asked.protocol.stop == "newline"
    outputs = scoring.generate(
        subject.network, subject.tokenizer, starts, asked.new_tokens, newline=newline
    )
    owns = [np.array(one.ids, dtype=np.int32) for one in outputs]
    found = [
        [Request(np.concatenate([start, answer]), len(start)) for answer in both]
        for start, *both in zip(starts, owns, golds, strict=True)
    ]
    return found, [one.text for one in outputs]


def _values(subject: Subject, requests: list[Request], table: np.ndarray) -> dict[str, list]:
    from pretune.models.comparing import NUMBERS

    known = dict(zip(NUMBERS, table, strict=True))
    ids = np.concatenate([one.ids[one.start :] for one in requests])
    values = {name: known[name].tolist() for name in NATS}
    values |= {name: known[name].astype(int).tolist() for name in RANKS}
    values["pieces"] = _pieces(subject.tokenizer, ids)
    return values | {"base_pieces": _pieces(subject.tokenizer, known["base_choice"].astype(int))}


def _pieces(tokenizer, ids: np.ndarray) -> list[str]:
    """What each token says; nothing of one that stands for an end or a beginning."""
    return tokenizer.batch_decode([[one] for one in ids.tolist()], skip_special_tokens=True)


MEASURE = Divergence()
