"""The claims, fixed before the data: what each says, what its effect is, and the margin that the
effect is held against.

Effects are signed so that up is what is claimed. `CHANGED` says which rules were sharpened after
a study had been seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pretune.statistics import MARGIN

FAMILY = (
    "The claims of a page are a family: probabilities are adjusted by Holm's rule, and each "
    "interval is widened as much before it is held against its margin."
)
CHANGED = (
    "The rules of 1a, 1b, 2b, 3b, 4a, 4c, 5a and 5c, the score without a skill of questions with "
    "given answers, and the words of verdicts were sharpened on 2026-11-24, after the first "
    "studies (world seeds 2 and 4, the released tables) had been seen and before any other: what "
    "is said of those is said in hindsight. Before that date a mere pair of neighbouring "
    "checkpoints was taken to say more of noise than it can: verdicts on the released tables were "
    "too sure."
)


@dataclass(frozen=True)
class Claim:
    """`reference` is the number of Sun & Dredze for OLMo-1B, recomputed from their released
    tables (commit 8b79c39). Where not `two_sided`, the margin is a bound and no band around
    nothing.
    """

    text: str
    effect: str
    unit: str = "score, 0 to 1"
    margin: float = MARGIN
    reference: str = "–"
    two_sided: bool = True

    @property
    def rule(self) -> str:
        """The rule in a sentence, without the correction for the family, which `FAMILY` says."""
        other = "not supported where below"
        if self.two_sided:
            other = (
                f"no effect where it lies within ±{self.margin:g}, opposite where below "
                f"-{self.margin:g}, not supported where below {self.margin:g} and neither"
            )
        return (
            f"{self.effect}: supported where the 95 % interval lies above {self.margin:g}, "
            f"{other}, else undecided"
        )


CLAIMS = {
    "1a": Claim(
        "Some datasets are learned in pre-training and some are not",
        "mean gain of the learned minus that of the not-learned sets, sorted on half A of "
        "the items, on half B",
        reference="HellaSwag .253 to .628, MNLI .354 to .327 (first to last checkpoint)",
    ),
    "1b": Claim(
        "A flat set is a constant answer rather than a skill",
        "share of the most frequent prediction within each late checkpoint, shot draw and "
        "run, averaged, on the not-learned classification set where its interval reaches "
        "lowest",
        "share of predictions",
        1 - MARGIN,
        "MNLI, PAWS: one label throughout at the last checkpoint",
        two_sided=False,
    ),
    "2a": Claim(
        "Pre-training helps flat sets in a way that shows only after tuning",
        "mean over not-learned sets of (tuned late - tuned early) - (base late - base early)",
        reference="MNLI tuned .354 to .790, untuned .354 to .327",
    ),
    "2b": Claim(
        "Tuning helps not-learned sets more than learned ones",
        "mean of tuned - base at late, not-learned minus learned sets, each tuned on "
        "equally many rows of its own",
        reference="mean gain .290 against -.005 at the last checkpoint, by different procedures",
    ),
    "2c": Claim(
        "More pre-training keeps helping to the end",
        "slope of the tuned score of not-learned sets over the last third of the run",
        "score per doubling of tokens",
        reference="from 2.1 T to 3.1 T tokens -.023 (five instruction sets)",
    ),
    "3a": Claim(
        "Tuning fits the model to the training format",
        "mean over own sets of (default - other format) after tuning at late, minus the "
        "same before",
    ),
    "3b": Claim(
        "More pre-training loosens it",
        "(default - other format) after tuning, at the first checkpoint where tuning "
        "works (on half A) minus at late (on half B)",
        reference="relative gap to instruct .42 at the first, .12 at the last checkpoint",
    ),
    "4a": Claim(
        "Tuning on classification destroys generation",
        "1 - ratio of sums of generation scores, tuned over base, over checkpoints and "
        "the sets that base answers better than no skill by the margin",
        "share of the score",
        0.2,
        "-61.4 % (mean of 32 ratios, median -98.6 %)",
    ),
    "4b": Claim(
        "Tuning on generation leaves classification",
        "mean of tuned - base at late, on sets that base answers better than no skill by "
        "the margin",
        margin=-MARGIN,
        two_sided=False,
        reference="+0.3 %, of scores that were a constant answer",
    ),
    "4c": Claim(
        "What 4a loses is the habit, not the skill",
        "log-likelihood of the gold output forced on the model, tuned - base at late",
        "nats per token",
        -MARGIN,
        two_sided=False,
    ),
    "5a": Claim(
        "Tuning on one domain hurts other domains of the task",
        "mean loss at late, base - tuned, on the out-of-domain sets that base answers "
        "better than no skill by the margin",
    ),
    "5b": Claim(
        "Tuning hurts knowledge the task does not need",
        "mean loss over recipes and the knowledge sets that base answers, base - tuned at late",
    ),
    "5b (text)": Claim(
        "Tuning hurts knowledge the task does not need",
        "rise of the loss on held-out text, mean over recipes at late",
        "nats per token",
    ),
    "5c": Claim(
        "LoRA forgets less at equal gain",
        "loss of knowledge after full tuning minus that after LoRA, where the interval of "
        "the difference of their own scores lies within the margin",
    ),
}

# Changes of Sun & Dredze for every task are gains where positive; losses have the other sign.
for task, change in {
    "MNLI": "-.246 (a gain)",
    "SocialIQa": "-.021",
    "XSum": "+.003",
    "PAWS": "void (hidden labels)",
}.items():
    CLAIMS[f"5a ({task})"] = replace(CLAIMS["5a"], reference=change)


def claim(name: str) -> Claim:
    """The claim of a verdict: `3a (io)` is a case of 3a."""
    return CLAIMS.get(name) or CLAIMS[name.partition(" ")[0]]
