"""How soon the microworld's text is predicted as well as the former settings of `quick` predicted
it at their end: AdamW, batches of three rows, 1,300 steps.

Both read the text of a world of quick's size. What is held against each other is seconds of
training, one thread, measures of the held-out loss (nats per character, since vocabularies differ)
left out.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable

import torch

from benchmarks.run import table, write
from benchmarks.setting import Result
from pretune.models import pretraining, training
from pretune.recipes.pretrain import Architecture, Pretraining
from pretune.sources.microworld.text import documents
from pretune.sources.microworld.world import World, make_world
from pretune.study.load import load_study

FORMER, STEPS = Pretraining(learning_rate=4e-3, batch_size=3, length=384, warmup=0.05), 1300
SHAPE = Architecture(layers=4, width=128, heads=4, intermediate=384, context=384, vocabulary=1024)
EVERY = 25  # steps between two measures of the held-out loss
HELD_OUT = 300  # documents
SEED = 1  # the world that settings were chosen on


class Reached(Exception):
    """The loss that was asked for is there."""


class Clock:
    """Seconds since it was started, but for those of measuring."""

    def __init__(self):
        self.start, self.left_out = time.perf_counter(), 0.0

    def measure(self, work: Callable[[], float]) -> float:
        begun = time.perf_counter()
        found = work()
        self.left_out += time.perf_counter() - begun
        return found

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start - self.left_out


def run(world: World, settings: Pretraining, steps: int, until: float = 0.0) -> tuple[float, float]:
    """Seconds of training, and the held-out loss at the end or once it is below `until`."""
    text = itertools.islice(documents(world, 0), pretraining.TOKENIZER_DOCUMENTS)
    tokenizer = pretraining.train_tokenizer(text, settings.architecture.vocabulary)
    count = steps * settings.batch_size
    rows = pretraining.text_rows(documents(world, 0), tokenizer, settings.length, count)
    model = pretraining.new_model(settings.architecture, tokenizer, 0)
    held = list(itertools.islice(documents(world, "held out"), HELD_OUT))
    clock, losses = Clock(), [float("inf")]

    def after(step: training.Step) -> None:
        if step.step % EVERY == 0 or step.step == steps:
            losses.append(clock.measure(lambda: held_out(model, tokenizer, held)))
            if losses[-1] <= until:
                raise Reached

    with contextlib.suppress(Reached):
        training.train(model, rows, settings, 0, after_step=after)
    return clock.seconds, losses[-1]


def held_out(model, tokenizer, held: list[str]) -> float:
    """Nats per character of documents, each after the end of another."""
    total = 0.0
    with torch.inference_mode():
        for text in held:
            ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    return total / sum(map(len, held))


def main() -> None:
    torch.set_num_threads(1)
    quick = load_study("quick").checkpoints
    size = quick.world
    world = make_world(SEED, size.people, size.towns, size.countries)
    former = FORMER.model_copy(update={"architecture": SHAPE})
    then, loss = run(world, former, STEPS)
    now, reached = run(world, quick.pretraining, quick.steps[-1], loss)
    assert reached <= loss, f"held-out loss {reached:.3f} nats a character, formerly {loss:.3f}"
    said = f"held-out loss {loss:.3f} nats a character"
    what = "pre-training to the former loss"
    found = [Result(what, "quick", "former settings", [now], [then], said, 3.0)]
    write(found)
    print(table(found))


if __name__ == "__main__":
    main()
