"""Log-likelihoods of given answers against lm-evaluation-harness (HF backend): same prompts,
answers, model and dtype.
"""

from __future__ import annotations

import time

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks import setting
from benchmarks.setting import Result
from pretune.models import reading, scoring

CASES = (
    ("hellaswag", 4),
    ("arc_easy", 4),
    ("boolq", 4),
    ("paws", 4),
    ("mnli", 4),
    ("hellaswag", 0),
)
COUNT = {"1 M": 24, "30 M": 8}
BATCHES = (1, 4, 16)  # the peer takes the fastest of these


def ceiling(asked: list[list]) -> float:
    """Tokens that the peer must read over tokens that differ. The peer reads a context once for
    answers of one token.
    """
    contexts = [reading.shared_start(some) for some in asked]
    root = reading.root_of([some[0].ids[:size] for some, size in zip(asked, contexts, strict=True)])
    single = all(len(one.ids) - one.start == 1 for some in asked for one in some)
    peer = sum(len(one.ids) - 1 for some in asked for one in some[: 1 if single else None])
    tails = (
        sum(len(one.ids) - size - 1 for one in some)
        for some, size in zip(asked, contexts, strict=True)
    )
    return peer / (root + sum(size - root for size in contexts) + sum(tails))


def run(name: str) -> list[Result]:
    tokenizer, model = setting.tokenizer(), setting.model(name)
    peer, found = (
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=2048, device="cpu"),
        [],
    )
    for dataset, shots in CASES:
        prefix, items = setting.items(dataset, COUNT[name], shots)
        instances = [
            Instance("loglikelihood", {}, (prefix + item.prompt, choice), 0)
            for item in items
            for choice in item.choices
        ]

        peer.batch_size_per_gpu = fastest(peer, instances[: len(instances) // 4])

        def ours(prefix=prefix, items=items):
            return scoring.log_likelihoods(model, setting.requests(tokenizer, prefix, items))

        def theirs(instances=instances):
            with torch.no_grad():
                return [value for value, _ in peer.loglikelihood(instances, disable_tqdm=True)]

        ours_s, peer_s, mine, other = setting.in_turn(setting.timed(ours), setting.timed(theirs))
        apart = setting.farthest(mine, [other])
        assert apart < 1e-3, f"{dataset}: log-likelihoods are {apart:g} nats apart"
        top = ceiling(setting.requests(tokenizer, prefix, items))
        found.append(
            Result(
                f"{dataset}, {shots}-shot",
                name,
                "lm-evaluation-harness",
                ours_s,
                peer_s,
                f"log-likelihoods within {apart:.0e} nats",
                0.7 * top,
                {
                    "ceiling": round(top, 2),
                    "items": len(items),
                    "peer_batch": peer.batch_size_per_gpu,
                },
            )
        )
    return found


def fastest(peer: HFLM, instances: list[Instance]) -> int:
    """The batch size with which the peer scores `instances` fastest."""
    seconds = {}
    for size in BATCHES:
        peer.batch_size_per_gpu, start = size, time.perf_counter()
        peer.loglikelihood(instances, disable_tqdm=True)
        seconds[size] = time.perf_counter() - start
    return min(seconds, key=seconds.get)
