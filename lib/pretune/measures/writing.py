"""What a model writes where answers are given: does it end by itself, does it name an answer, and
is that the right one?

Reading an answer off the likelihoods of those given forces their form on the model. Here it writes,
greedily, and both can fail. Answers that count are the labels, or the choices of all items asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa

from pretune.measures.base import Asked, Measure, Measured, Subject
from pretune.measures.generation import parts
from pretune.tasks import prompts


class Writing(Measure):
    name = "writing"
    generates = True
    columns = {
        "length": pa.int32(),  # generated tokens
        "stop": pa.string(),  # newline, end or length
        "named": pa.int32(),  # how many different answers stand in it
        "right": pa.bool_(),  # whether the right one does, and no other
    }

    def rows(self, subject: Subject, asked: Asked) -> Iterator[Measured]:
        from pretune.models import scoring

        requests = prompts.requests(subject.tokenizer, asked.prefix, asked.examples)
        starts, _ = parts(subject, asked, [several[0] for several in requests])
        newline = asked.protocol.stop == "newline"
        outputs = scoring.generate(
            subject.network, subject.tokenizer, starts, asked.new_tokens, newline=newline
        )
        known = pattern(choice for item in asked.examples for choice in item.choices)
        for item, start, output in zip(asked.examples, starts, outputs, strict=True):
            named = {one.lower() for one in known.findall(output.text)}
            values = {"length": output.length, "stop": output.stop, "named": len(named)}
            values |= {"right": named == {item.completion.strip().lower()}}
            yield Measured(values, output.text, len(start) + output.length, output.is_sound)

    def score(self, rows: pd.DataFrame, normalisation: str) -> pd.DataFrame:
        score, baseline = rows["right"].to_numpy(float), rows["baseline"].to_numpy()
        return pd.DataFrame({"prediction": -1, "score": score, "baseline": baseline})


def pattern(answers: Iterator[str]) -> re.Pattern:
    """Finds answers as whole words, whatever their case; where one stands in another, the longer
    (`entailment` in `no entailment`).
    """
    some = sorted({one.strip() for one in answers}, key=lambda one: (-len(one), one))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, some))})(?!\w)", re.IGNORECASE)


MEASURE = Writing()
