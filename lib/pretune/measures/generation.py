"""Generated text: ROUGE-L against the right one, and the likelihood of that forced on the model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from pretune.measures import choices
from pretune.measures.base import Asked, Measure, Measured, Subject
from pretune.tasks import prompts, rows


class Generation(Measure):
    name = "generation"
    generates = True
    columns = choices.LIKELIHOODS | {
        "rouge_l": pa.float64(),
        "length": pa.int32(),  # generated tokens
        "stop": pa.string(),  # newline, end or length
    }

    def rows(self, subject: Subject, asked: Asked) -> Iterator[Measured]:
        requests = prompts.requests(subject.tokenizer, asked.prefix, asked.examples)
        outputs = _generate(subject, asked, [request[0] for request in requests])
        blanks = choices.blank_likelihoods(subject, asked)
        for item, request, output, blank in zip(
            asked.examples, requests, outputs, blanks, strict=True
        ):
            values = {"log_likelihood": [output.gold], "blank_log_likelihood": blank}
            values |= prompts.lengths(item, request)
            values |= {"rouge_l": rows.rouge_l(output.text, item.completion)}
            values |= {"length": output.length, "stop": output.stop}
            tokens = sum(len(one.ids) for one in request)
            yield Measured(values, output.text, tokens, output.is_sound)

    def score(self, rows: pd.DataFrame, normalisation: str) -> pd.DataFrame:
        score, baseline = (rows[name].to_numpy() for name in ("rouge_l", "baseline"))
        return pd.DataFrame({"prediction": -1, "score": score, "baseline": baseline})


def _generate(subject: Subject, asked: Asked, requests: list[prompts.Request]) -> list:
    from pretune.models import scoring

    starts, golds = parts(subject, asked, requests)
    newline = asked.protocol.stop == "newline"
    return scoring.generate(
        subject.network, subject.tokenizer, starts, asked.new_tokens, golds, newline=newline
    )


def parts(
    subject: Subject, asked: Asked, requests: list[prompts.Request]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What an answer is written after, and what would be right: the tokens before each completion
    and it; as published, the prompt with a space at its end, and the completion without one.
    """
    if asked.protocol.prompt_end != "space":
        whole = [np.split(one.ids, [one.start]) for one in requests]
        return [start for start, _ in whole], [gold for _, gold in whole]
    texts = [f"{asked.prefix}{item.prompt} " for item in asked.examples]
    starts = [prompts.ids_of(subject.tokenizer, text) for text in texts]
    answers = [item.completion.strip() for item in asked.examples]
    golds = [prompts.ids_of(subject.tokenizer, text, begins=False) for text in answers]
    return starts, golds


MEASURE = Generation()
