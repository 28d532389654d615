"""Is a fact known, by what a model says when it is asked again and again? (Gekhman et al., arXiv
2405.05904: classes by greedy answers to several prompts, and by answers drawn at a temperature)

After one prompt: the greedy answer, and some that are drawn at a temperature of .5.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import pandas as pd
import pyarrow as pa

from pretune.measures.base import Asked, Measure, Measured, Subject
from pretune.measures.generation import parts
from pretune.tasks import prompts

DRAWN, TEMPERATURE = 8, 0.5


class Sampling(Measure):
    name = "sampling"
    generates = True
    reads = 1.0 + DRAWN
    columns = {
        "greedy": pa.bool_(),  # whether the greedy answer is right
        "drawn": pa.int32(),  # answers that were drawn
        "drawn_right": pa.int32(),  # those of them that are right
    }

    def rows(self, subject: Subject, asked: Asked) -> Iterator[Measured]:
        from pretune.models import scoring

        requests = prompts.requests(subject.tokenizer, asked.prefix, asked.examples)
        starts, _ = parts(subject, asked, [several[0] for several in requests])

        def answers(several: list, temperature: float) -> list[scoring.Generation]:
            how = {"newline": asked.protocol.stop == "newline", "temperature": temperature}
            network, tokenizer = subject.network, subject.tokenizer
            return scoring.generate(network, tokenizer, several, asked.new_tokens, **how)

        greedy = answers(starts, 0.0)
        drawn = answers(
            list(chain.from_iterable(repeat(one, DRAWN) for one in starts)), TEMPERATURE
        )
        for item, start, one in zip(asked.examples, starts, greedy, strict=True):
            own, drawn = drawn[:DRAWN], drawn[DRAWN:]
            right = item.completion.strip()
            values = {"greedy": one.text == right, "drawn": DRAWN}
            values |= {"drawn_right": sum(other.text == right for other in own)}
            tokens = (len(start) + one.length) * (1 + DRAWN)
            yield Measured(values, one.text, tokens, all(some.is_sound for some in (one, *own)))

    def score(self, rows: pd.DataFrame, normalisation: str) -> pd.DataFrame:
        score, baseline = rows["greedy"].to_numpy(float), rows["baseline"].to_numpy()
        return pd.DataFrame({"prediction": -1, "score": score, "baseline": baseline})


MEASURE = Sampling()
