"""How far two models are apart on two answers to each question, as a study has them, against the
loop that a user would write: of each sequence a forward pass of either model, and distances from
the logits of the answer.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch

from benchmarks import setting
from benchmarks.setting import Result
from pretune.models import comparing, reading
from pretune.tasks.example import Example
from pretune.tasks.prompts import Request

CASES = (("xsum", 0), ("mnli", 4))
COUNT = {"1 M": 24, "30 M": 8}
NATS = [0, 1, 4, 5, 6, 7]  # of `comparing.NUMBERS`


def plain(tuned, base, pairs) -> list[np.ndarray]:
    """The numbers of `comparing.compared`, of one sequence after the other."""
    found = []
    with torch.inference_mode():
        for one in chain.from_iterable(pairs):
            ids = torch.from_numpy(one.ids.astype(np.int64))[None].to(tuned.device)
            some = [model(ids).logits[0, one.start - 1 : -1].float() for model in (tuned, base)]
            ones, others = (logits.log_softmax(-1) for logits in some)
            said = ids[0, one.start :, None]
            own = [table.gather(1, said) for table in (ones, others)]
            lines = [values[:, 0] for values in own]
            both = zip((ones, others), own, strict=True)
            lines += [(table > values).sum(1) + 1.0 for table, values in both]
            lines += [
                (ones.exp() * (ones - others)).sum(1),
                (others.exp() * (others - ones)).sum(1),
            ]
            lines += [-(table.exp() * table).sum(1) for table in (ones, others)]
            found.append(torch.stack([*lines, some[1].argmax(1).float()]).cpu().numpy())
    return found


def answers(tokenizer, prefix: str, items: list[Example]) -> list[list[Request]]:
    """Two to each question: what is right, with another last token, and what is right."""
    golds = [some[0] for some in setting.requests(tokenizer, prefix, items)]
    owns = [Request(np.append(one.ids[:-1], 11), one.start) for one in golds]
    return [list(some) for some in zip(owns, golds, strict=True)]


def farthest(ours: list[list[np.ndarray]], peer: list[np.ndarray]) -> float:
    """Nats. Of ranks and choices, two tokens that are all but alike may change places."""
    mine = [table[NATS] for table in chain.from_iterable(ours)]
    return setting.farthest(mine, [table[NATS] for table in peer])


def ceiling(pairs) -> float:
    """Tokens that the peer must read over tokens that differ."""
    root = reading.root_of([some[0].ids[: some[0].start] for some in pairs])
    peer = sum(len(one.ids) - 1 for one in chain.from_iterable(pairs))
    contexts = sum(some[0].start - root for some in pairs)
    tails = sum(len(one.ids) - one.start - 1 for one in chain.from_iterable(pairs))
    return peer / (root + contexts + tails)


def run(name: str) -> list[Result]:
    tokenizer, base, tuned = setting.tokenizer(), setting.model(name), setting.model(name, 1)
    found = []
    for dataset, shots in CASES:
        pairs = answers(tokenizer, *setting.items(dataset, COUNT[name], shots))
        ours_s, peer_s, mine, other = setting.in_turn(
            setting.timed(lambda some=pairs: comparing.compared(tuned, base, some)),
            setting.timed(lambda some=pairs: plain(tuned, base, some)),
        )
        apart = farthest(mine, other)
        assert apart < 1e-4, f"{dataset}: distances are {apart:g} nats apart"
        top = ceiling(pairs)
        found.append(
            Result(
                f"divergence of {dataset}, {shots}-shot",
                name,
                "two forward passes",
                ours_s,
                peer_s,
                f"distances within {apart:.0e} nats",
                min(3.0, 0.7 * top),
                {"ceiling": round(top, 2), "items": len(pairs)},
            )
        )
    return found
