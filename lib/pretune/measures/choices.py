"""Which of the given answers is likeliest: accuracy under several normalisations, and what answers
without the question would score.

Log-likelihoods are divided by nothing (`sum`), by the `tokens` or `characters` of the answer, or
`calibrated`: those after a content-free prompt are subtracted. `dataset` stands for what each
dataset has as its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from pretune.measures.base import Asked, Measure, Measured, Subject
from pretune.tasks import prompts
from pretune.tasks.prompts import Request
from pretune.tasks.registry import REGISTRY

NORMALISATIONS = ("dataset", "sum", "tokens", "characters", "calibrated")
LIKELIHOODS = {
    "log_likelihood": pa.list_(pa.float64()),  # nats, one per completion
    "blank_log_likelihood": pa.list_(pa.float64()),  # the same after the content-free prompt
    "choice_tokens": pa.list_(pa.int32()),
    "choice_characters": pa.list_(pa.int32()),
}
PROBE = ["dataset", "checkpoint", "recipe", "seed", "draw", "format", "shots_asked"]


class Choices(Measure):
    name = "choices"
    columns = LIKELIHOODS

    def rows(self, subject: Subject, asked: Asked) -> Iterator[Measured]:
        from pretune.models import scoring

        requests = prompts.requests(subject.tokenizer, asked.prefix, asked.examples)
        if asked.protocol.labels == "sub-tokens" and asked.dataset.kind == "classification":
            likelihoods = _labels(subject, asked, [item.prompt for item in asked.examples])
            blanks = _labels(subject, asked, [item.blank for item in asked.examples])
        else:
            likelihoods = scoring.log_likelihoods(subject.network, requests)
            blanks = blank_likelihoods(subject, asked)
        for item, request, likelihood, blank in zip(
            asked.examples, requests, likelihoods, blanks, strict=True
        ):
            values = {"log_likelihood": likelihood, "blank_log_likelihood": blank}
            values |= prompts.lengths(item, request)
            yield Measured(values, None, sum(len(one.ids) for one in request))

    def score(self, rows: pd.DataFrame, normalisation: str) -> pd.DataFrame:
        """Raises KeyError for a name that is no normalisation, ValueError where a log-likelihood
        is not finite. The baseline of questions with answers of their own is that of
        `_without_question`, by the same normalisation; else as it was recorded.
        """
        if normalisation not in NORMALISATIONS:
            allowed = ", ".join(NORMALISATIONS)
            raise KeyError(f"{normalisation!r} is no normalisation; allowed: {allowed}")
        predicted = np.full(len(rows), -1)
        levels = np.tile(rows["baseline"].to_numpy(dtype=float), (3, 1))
        choices = rows["log_likelihood"].map(len).to_numpy()
        for (name, _), places in rows.groupby(["dataset", choices]).indices.items():
            part, about = rows.iloc[places], REGISTRY[name]
            by = about.normalisation if normalisation == "dataset" else normalisation
            predicted[places] = _predictions(part, by)
            if about.kind == "choices":
                levels[:, places] = _without_question(part, by)
        score = (predicted == rows["gold"].to_numpy()).astype(float)
        baseline = _highest(rows, levels)
        return pd.DataFrame({"prediction": predicted, "score": score, "baseline": baseline})


def blank_likelihoods(subject: Subject, asked: Asked) -> list[list[float]]:
    """Log-likelihoods of the completions after the content-free prompt; the same completion is
    scored once.
    """
    from pretune.models import scoring

    pairs: dict[tuple[str, str], float] = {}
    for item in asked.examples:
        pairs |= dict.fromkeys((item.blank, choice) for choice in item.choices)
    requests = [
        [prompts.split(subject.tokenizer, asked.prefix + blank, choice)] for blank, choice in pairs
    ]
    found = scoring.log_likelihoods(subject.network, requests)
    values = {pair: one for pair, (one,) in zip(pairs, found, strict=True)}
    return [[values[item.blank, choice] for choice in item.choices] for item in asked.examples]


def _labels(subject: Subject, asked: Asked, texts: list[str]) -> list[list[float]]:
    """Per prompt and label the log-probability of the likeliest of the label's sub-tokens, with
    and without a leading space, as the next token (Sun & Dredze, code: the arg max over all
    sub-tokens, mapped back to the word).
    """
    from pretune.models import scoring

    parts = [_sub_tokens(subject.tokenizer, label) for label in asked.dataset.labels]
    flat, borders = np.concatenate(parts), np.cumsum([len(some) for some in parts])[:-1]
    end, requests = " " * (asked.protocol.prompt_end == "space"), []
    for text in texts:
        start = prompts.ids_of(subject.tokenizer, asked.prefix + text + end)
        requests.append(
            [Request(np.append(start, token).astype(np.int32), len(start)) for token in flat]
        )
    found = scoring.log_likelihoods(subject.network, requests)
    return [[float(part.max()) for part in np.split(np.array(one), borders)] for one in found]


def _sub_tokens(tokenizer, label: str) -> list[int]:
    """The tokens that a label consists of, with or without a leading space."""
    codes = tokenizer([label, " " + label], add_special_tokens=False)["input_ids"]
    return sorted(set(codes[0]) | set(codes[1]))


def _predictions(rows: pd.DataFrame, normalisation: str) -> np.ndarray:
    """The likeliest choice of each of `rows`, which have equally many choices. Raises ValueError
    where one is not finite.
    """
    blank = _table(rows, "blank_log_likelihood") if normalisation == "calibrated" else 0.0
    likelihood = _normalised(rows, _table(rows, "log_likelihood"), blank, normalisation)
    wrong = ~np.isfinite(likelihood).all(axis=1)
    if wrong.any():
        row, values = rows.iloc[wrong.argmax()], likelihood[wrong.argmax()].tolist()
        raise ValueError(
            f"{row['dataset']} at {row['checkpoint']}: row {row['item']} has log-likelihoods that "
            f"are not finite ({values}) and so no answer; remove its record and run the study "
            "again"
        )
    return likelihood.argmax(axis=1)


def _normalised(
    rows: pd.DataFrame, likelihood: np.ndarray, blank: np.ndarray | float, normalisation: str
) -> np.ndarray:
    """Log-likelihoods (rows, choices) as they are compared; `blank` are those after the
    content-free prompt.
    """
    if normalisation == "calibrated":
        return likelihood - blank
    if normalisation == "sum":
        return likelihood
    return likelihood / _table(rows, f"choice_{normalisation}")


def _without_question(rows: pd.DataFrame, normalisation: str) -> np.ndarray:
    """What three answers without a skill score on each of `rows` (3, rows), ties counted as the
    share that is right: chance; a model that finds all tokens alike, which by characters prefers
    long words; and the likelihood of the answers after the content-free prompt, which knows what
    is likely to be said, and not what was asked.
    """
    alike = -_table(rows, "choice_tokens").astype(float)
    blank = _table(rows, "blank_log_likelihood")
    likelihoods = [_normalised(rows, one, one, normalisation) for one in (alike, blank)]
    gold = rows["gold"].to_numpy()[:, None]
    found = []
    for compared in (np.zeros_like(alike), *likelihoods):
        best = compared == compared.max(axis=1, keepdims=True)
        found.append(np.take_along_axis(best, gold, 1)[:, 0] / best.sum(axis=1))
    return np.stack(found)


def _highest(rows: pd.DataFrame, levels: np.ndarray) -> np.ndarray:
    """Of `levels` (several, rows) for every model and probe the one with the largest mean over
    its items (rows,).
    """
    group = rows.groupby(PROBE).ngroup().to_numpy()
    means = np.stack([np.bincount(group, one) for one in levels])
    return levels[means.argmax(axis=0)[group], np.arange(len(rows))]


def _table(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column of equally long lists as an array (rows, choices)."""
    return np.stack(rows[column].to_list())


MEASURE = Choices()
