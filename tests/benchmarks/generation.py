"""Greedy generation of summaries against lm-evaluation-harness, and against `generate` with one
prompt at a time.
"""

from __future__ import annotations

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks import setting
from benchmarks.setting import Result
from pretune.models import scoring
from pretune.tasks import rows

COUNT, NEW, SHOTS = 24, 60, 2
BATCH = 8  # of the peer


def run(name: str) -> list[Result]:
    tokenizer, model = setting.tokenizer(), setting.model(name)
    prefix, items = setting.items("xsum", COUNT, SHOTS)
    items = [
        item for item in items if len(tokenizer(prefix + item.prompt)["input_ids"]) + NEW <= 2048
    ]
    texts = [prefix + item.prompt for item in items]

    def ours():
        prompts = [setting.ids(tokenizer, text) for text in texts]
        made = scoring.generate(model, tokenizer, prompts, NEW)
        return [
            (one.text, rows.rouge_l(one.text, item.completion))
            for one, item in zip(made, items, strict=True)
        ]

    def harness():
        made = peer.generate_until(instances, disable_tqdm=True)
        return [
            (text.strip(), rows.rouge_l(text, item.completion))
            for text, item in zip(made, items, strict=True)
        ]

    def one_by_one():
        return [
            (text, rows.rouge_l(text, item.completion))
            for text, item in zip(map(alone, texts), items, strict=True)
        ]

    @torch.no_grad()
    def alone(text: str) -> str:
        ids = torch.from_numpy(setting.ids(tokenizer, text))[None]
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=1,
        )
        return (
            tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
            .split("\n")[0]
            .strip()
        )

    peer = HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=BATCH, max_length=2048, device="cpu"
    )
    options = {"until": ["\n"], "max_gen_toks": NEW, "do_sample": False}
    instances = [Instance("generate_until", {}, (text, options), 0) for text in texts]
    found = []
    for label, other, bar in (
        ("lm-evaluation-harness", harness, 2.0),
        ("generate, one by one", one_by_one, 4.0),
    ):
        ours_s, peer_s, mine, theirs = setting.in_turn(setting.timed(ours), setting.timed(other))
        same = sum(one[0] == two[0] for one, two in zip(mine, theirs, strict=True))
        assert same >= 0.9 * len(items), f"only {same} of {len(items)} texts are the same"
        found.append(
            Result(
                f"xsum, {SHOTS}-shot, {NEW} tokens",
                name,
                label,
                ours_s,
                peer_s,
                f"{same} of {len(items)} texts the same",
                bar,
                {"items": len(items)},
            )
        )
    return found
