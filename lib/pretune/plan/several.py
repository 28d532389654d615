"""Several studies in one call: which are meant, and in what order."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from pretune.errors import StudyError
from pretune.study.config import Study
from pretune.study.load import known, load_study
from pretune.study.sources import Saved
from pretune.tasks.registry import GENERATED

ALL = "all"
LONGEST = 6 * 3600  # seconds that a study of `all` may take


def named(texts: Sequence[str]) -> list[str]:
    """Names of studies, each once: as they are given, of a pattern such as `*quick` those that
    fit it, of `all` every one whose model is pre-trained on a generated world.

    Raises StudyError where nothing fits a pattern.
    """
    there = sorted(known())
    names: list[str] = []
    for text in texts:
        if text == ALL:
            fitting = [name for name in there if _is_generated(load_study(name))]
        else:
            fitting = fnmatch.filter(there, text) if "*" in text else [text]
        if not fitting:
            raise StudyError(f"{text}: no study fits; known: {', '.join(there)}")
        names += fitting
    return list(dict.fromkeys(names))


def _is_generated(study: Study) -> bool:
    made = all(isinstance(model, Saved) for model in study.models.values())
    return made and study.datasets.source in GENERATED


def in_order(texts: Sequence[str], seconds: Mapping[str, float]) -> list[str]:
    """Studies by the `seconds` that they are expected to take, the shortest first, since its pages
    can be read while the others run. `all` leaves out what takes longer than `LONGEST`, a study
    for a GPU where there is none.
    """
    wanted = [
        name
        for name, span in seconds.items()
        if ALL not in texts or name in texts or span <= LONGEST
    ]
    return sorted(wanted, key=lambda name: seconds[name])
