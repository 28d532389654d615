"""The loss of a text: minus its log-likelihood, in nats per token. No bound applies to it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from pretune.measures.base import Asked, Measure, Measured, Subject
from pretune.tasks import prompts


class TextLoss(Measure):
    name = "text_loss"
    columns = {
        "log_likelihood": pa.list_(pa.float64()),  # nats, of the whole text
        "choice_tokens": pa.list_(pa.int32()),
        "choice_characters": pa.list_(pa.int32()),
    }

    def rows(self, subject: Subject, asked: Asked) -> Iterator[Measured]:
        from pretune.models import scoring

        requests = prompts.requests(subject.tokenizer, asked.prefix, asked.examples)
        likelihoods = scoring.log_likelihoods(subject.network, requests)
        for item, request, likelihood in zip(asked.examples, requests, likelihoods, strict=True):
            values = {"log_likelihood": likelihood, **prompts.lengths(item, request)}
            yield Measured(values, None, sum(len(one.ids) for one in request))

    def score(self, rows: pd.DataFrame, normalisation: str) -> pd.DataFrame:
        nats, tokens = (
            np.stack(rows[name].to_list()) for name in ("log_likelihood", "choice_tokens")
        )
        return pd.DataFrame(
            {
                "prediction": -1,
                "score": -(nats / tokens)[:, 0],
                "baseline": rows["baseline"].to_numpy(),
            }
        )


MEASURE = TextLoss()
