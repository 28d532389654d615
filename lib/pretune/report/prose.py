"""What pages say of a study in words: computed from its settings, since one text serves studies
that differ in them.

A sentence that is true of some studies and false of others stands here, beside the setting that
decides it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pretune.analysis.claims import FAMILY
from pretune.analysis.results import Results
from pretune.study.config import Protocol, Study
from pretune.tasks.registry import GENERATED, REGISTRY

SAME = "As in the reference study, "
# option of the protocol: what is said of it where it is corrected, and where it is as published
DIFFERS = {
    "shots": (
        "Shots are drawn from the train split and never scored; there they were the first "
        "evaluated items.",
        SAME + "shots are the first evaluated items, which stay scored.",
    ),
    "own_sets": (
        "A tuned model is asked about what it was tuned on without examples, as it was tuned; "
        "there with examples, which no tuning row has.",
        SAME + "a tuned model is asked about what it was tuned on with examples, too.",
    ),
    "labels": (
        "Labels are scored whole, by summed log-likelihood; there by the highest logit among "
        "sub-tokens of the labels.",
        SAME + "a label is read off the likeliest of its sub-tokens.",
    ),
    "prompt_end": (
        "Prompts end with a word in every format; there the default and instruct prompts ended in "
        "a space, which many tokenisers treat as a token of its own.",
        SAME + "prompts end in a space.",
    ),
    "stop": (
        "Generation ends at a newline for tuned and untuned models alike; there the untuned model "
        "wrote on for 60 tokens, which lowers its ROUGE-L.",
        SAME + "a generation goes on past a newline to its longest length.",
    ),
    "splits": (
        "Every label is public. There QQP and STS-B were scored on test splits whose labels are "
        'all hidden, so the paraphrase result measures how often a model says "no".',
        SAME
        + (
            "QQP and STS-B are scored on test splits whose labels are hidden: what stands "
            'there is how often a model says "no".'
        ),
    ),
    "too_long": (
        "Items that do not fit the context are left out and counted; there they were scored all "
        "the same.",
        SAME + "items are scored that do not fit the context.",
    ),
}


def bullets(sentences: Iterable[str]) -> str:
    """Sentences as a list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def differences(page: Results, options: Iterable[str], *always: str) -> str:
    """What differs from the reference study: by the `options` of its protocol, and `always`,
    whatever those are.
    """
    if page.study.tables:
        return bullets(
            [
                "Nothing was run: these are that study's own scores, by its own prompts, shots and "
                "splits. Only what is made of them differs.",
                *always,
            ]
        )
    said = [
        DIFFERS[name][getattr(page.study.protocol, name) != getattr(Protocol(), name)]
        for name in options
    ]
    return bullets([*said, *always])


def intervals(page: Results) -> str:
    """What the intervals of the page are made of, and how its claims are taken together."""
    if page.study.tables:
        how = (
            "Intervals join the released standard errors over items, as if scores were not "
            "paired, with what the effect moves by between the last two checkpoints, which is one "
            "degree of freedom."
        )
    else:
        several = page.study.runs > 1
        replicates = "pre-training runs" if several else "seeds and shot draws"
        how = (
            "Intervals join the spread over items, which are the same for all models, over "
            f"{replicates}, and over neighbouring checkpoints (Welch and Satterthwaite)."
        )
    return f"{how} {FAMILY}"


def asked(page: Results) -> str:
    """How datasets are asked and answers read."""
    study, published = page.study, page.study.protocol.shots == "evaluated"
    shots = (
        "the first items of the scored file, which stay scored"
        if published
        else "drawn from its train split, or the reserve of it where that is scored, and never "
        "scored"
    )
    end = "a newline" if study.protocol.stop == "newline" else "its longest length"
    by = (
        "usual for the dataset"
        if study.protocol.normalisation == "dataset"
        else "of the sum over its tokens"
    )
    return (
        "Each dataset is asked in its training format, with examples (*shots*) in front: "
        f"{shots}.{_own_sets(study)} A choice is the completion with the highest log-likelihood, "
        f"by the normalisation {by}; a generation is greedy, ends at {end}, and is scored by "
        f"ROUGE-L. {_no_skill(study)}"
    )


def _own_sets(study: Study) -> str:
    if study.protocol.own_sets != "as tuned":
        return ""
    return (
        " What a model was tuned on, and a partner of that in its domain, it is asked as it was "
        "tuned, without examples."
    )


def _no_skill(study: Study) -> str:
    if study.tables:
        return (
            "*No skill* is the share of the most frequent label, or chance among given answers. "
            "For generation, and by likelihoods without the question, it was not released."
        )
    return (
        "*No skill* is the score of the best answer that needs none: the most frequent label; "
        "among given answers the best of chance, a model that finds all tokens alike (by "
        "characters it prefers long words), and the model's own likelihoods of the answers "
        "without the question; for text, the training set's most frequent output or the first "
        "sentence."
    )


def tuned(page: Results) -> str:
    """On how many examples recipes tune."""
    counts = defaultdict(list)
    for recipe, how in page.study.recipes.items():
        if how.dataset:
            counts[page.study.tuning_of(recipe).examples].append(recipe)
    usual = max(counts, key=lambda count: len(counts[count]))
    other = []
    for count, some in counts.items():
        other += [f"`{recipe}` on {count:,}" for recipe in some if count != usual]
    same = "Every recipe tunes a checkpoint on" if not other else "Recipes tune a checkpoint on"
    return (
        f"{same} {usual:,} examples"
        + (f" ({', '.join(other)})" if other else "")
        + ", with the same hyper-parameters at every checkpoint."
        + _mixture(page.study)
    )


def _mixture(study: Study) -> str:
    chats = [
        name
        for name, how in study.recipes.items()
        if how.dataset and REGISTRY[how.dataset].kind == "chat"
    ]
    return (
        f" {', '.join(f'`{name}`' for name in chats)} tunes on a mixture of instructions."
        if chats
        else ""
    )


def seen(page: Results) -> str:
    """Whether what is asked for stood in the pre-training text."""
    data, sources = page.study.datasets, page.study.models.values()
    if {data.source, *(one.source for one in sources)} == {"microworld"}:
        same = all(one.world == data.world for one in sources)
        return (
            "Every fact that is asked for stood in the pre-training text, in other words; no "
            "document of the text did."
            if same
            else "No fact that is asked for stood in the pre-training text."
        )
    if data.source == "register":
        return (
            "Facts of seen people stood in the pre-training text, those of new and of never told "
            "people did not."
        )
    return "Which facts and documents stood in the pre-training text is not known."


def limits(page: Results, *more: str) -> str:
    """What the page does not show, for what kind of study it is, and `more`."""
    study, runs = page.study, page.study.runs
    said = []
    if study.datasets.source in GENERATED:
        said.append(
            "A generated world shows what the instrument can see, not what is true of language: "
            "its effects were known to be obtainable when it was designed."
        )
    if study.replicates < 3:
        many = (
            {1: "one seed", 2: "two seeds"}[study.replicates]
            if runs == 1
            else "two pre-training runs"
        )
        said.append(
            f"With {many} little is known about the spread of tuning and of shots; every verdict "
            "is provisional."
        )
    if runs == 1:
        said.append("One pre-training run is one sample of runs, however many checkpoints it has.")
    else:
        said.append(
            f"{runs} pre-training runs of one family are few, and say nothing of other families."
        )
    if any(one.late == 2 for one in study.models.values()):
        said.append(
            "Two neighbouring checkpoints say little about the noise between checkpoints: it has "
            "one degree of freedom, and intervals are wide for it."
        )
    return bullets([*said, *more])
