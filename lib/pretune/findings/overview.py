"""The overview: every claim with its verdict, beside the reference study's number and the control's verdict.

`findings.json` of a study holds its verdicts; the overview writes it and reads the one of the control study, if that was
run or is kept under `outputs/reference`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from pretune import params, paths, records
from pretune.findings import dichotomy, forgetting, latent, page, task_format, transfer
from pretune.params import Study
from pretune.statistics import Verdict

FINDINGS = {
    "01_dataset_dichotomy": dichotomy, "02_latent_benefits": latent, "03_task_format": task_format,
    "04_task_transfer": transfer, "05_domain_forgetting": forgetting,
}
CLAIMS = {
    "1a": "Some datasets are learned in pre-training and some are not",
    "1b": "A flat set is a constant answer rather than a skill",
    "2a": "Pre-training helps flat sets in a way that shows only after tuning",
    "2b": "Tuning helps not-learned sets more than learned ones",
    "2c": "More pre-training keeps helping to the end",
    "3a": "Tuning fits the model to the training format",
    "3b": "More pre-training loosens it",
    "4a": "Tuning on classification destroys generation",
    "4b": "Tuning on generation leaves classification",
    "4c": "What 4a loses is the habit, not the skill",
    "5a": "Tuning on one domain hurts other domains of the task",
    "5b": "Tuning hurts knowledge the task does not need",
    "5c": "LoRA forgets less at equal gain",
}
# Numbers of Sun & Dredze for OLMo-1B, recomputed from their released tables (commit 8b79c39); one seed each.
REFERENCE = {
    "1a": "HellaSwag .253 to .628, MNLI .354 to .327 (first to last checkpoint)",
    "1b": "MNLI, PAWS: one label throughout at the last checkpoint",
    "2a": "MNLI tuned .354 to .790, untuned .354 to .327",
    "2b": "mean gain .290 against -.005 at the last checkpoint, by different procedures",
    "2c": "from 2.1 T to 3.1 T tokens -.023 (five instruction sets)",
    "3b": "relative gap to instruct .42 at the first, .12 at the last checkpoint",
    "4a": "-61.4 % (mean of 32 ratios, median -98.6 %)",
    "4b": "+0.3 %, of scores that were a constant answer",
    "5a": "+.246 NLI, +.021 questions, -.003 summaries; paraphrase void (hidden labels)",
}


def judge_all(study: str) -> dict[str, list[Verdict]]:
    """The verdicts of every finding of the study."""
    whole = params.load_study(study)
    asked = [name for name in whole.findings if name in FINDINGS]
    return {name: FINDINGS[name].verdicts(page.open_page(study, name, "all")) for name in asked}


def keep(study: Study, verdicts: dict[str, list[Verdict]]) -> Path:
    """Write `findings.json`: per finding its claims, with effect, interval, n, seeds, verdict."""
    lines = {finding: [_plain(verdict) for verdict in some] for finding, some in verdicts.items()}
    file = paths.study_folder(study.name) / "findings.json"
    file.with_suffix(".partial").write_text(json.dumps({"study": study.name, "findings": lines}, indent=1))
    file.with_suffix(".partial").replace(file)
    return file


def _plain(verdict: Verdict) -> dict:
    effect = verdict.effect
    numbers = {name: getattr(effect, name) if effect else None for name in ("value", "low", "high", "n", "seeds")}
    numbers = {name: None if value is None or np.isnan(value) else value for name, value in numbers.items()}
    p = None if np.isnan(verdict.p) else verdict.p
    return {"claim": verdict.claim, "verdict": verdict.verdict, "provisional": verdict.provisional, "margin": verdict.margin,
            "p": p, "why": verdict.why} | numbers


def kept(study: str) -> dict[str, str]:
    """Claim to verdict of another study: of this machine's run of it, or of the one under `outputs/reference`."""
    for folder in (paths.study_folder(study), paths.REFERENCE / study):
        if (folder / "findings.json").is_file():
            found = json.loads((folder / "findings.json").read_text())["findings"]
            return {line["claim"]: line["verdict"] for some in found.values() for line in some}
    return {}


def table(study: Study, verdicts: dict[str, list[Verdict]]) -> pd.DataFrame:
    """One line per claim: effect, interval, n, seeds, verdict here, verdict of the control, the reference study's number."""
    lines, control = {}, kept("control") if study.name != "control" else {}
    for finding, some in verdicts.items():
        for verdict in some:
            short = verdict.claim.split(" ")[0]
            mark = " (provisional)" if verdict.provisional and verdict.verdict != "undecided" else ""
            lines[verdict.claim] = {
                "claim": CLAIMS[short], "effect": page.ranged(verdict.effect) if verdict.effect else "not asked",
                "n": verdict.effect.n if verdict.effect else "–", "seeds": verdict.effect.seeds if verdict.effect else "–",
                "verdict": f'<a href="{finding}.html">{verdict.verdict}</a>{mark}', "control": control.get(verdict.claim, "–"),
                "reference study, OLMo-1B": REFERENCE.get(short, "–"),
            }
    return pd.DataFrame(lines).T


def what_was_run(study: Study) -> str:
    """Models, rows, time and machine, in a sentence."""
    about = records.provenance(study)
    seconds = pd.DataFrame(list(about["seconds"])).sum().sum()
    rows = len(records.load(study, columns=["item"]))
    return (f"{len(about)} records of {about['model'].nunique()} models with {rows:,} scored rows, {seconds / 3600:.1f} process "
            f"hours of loading, tuning and scoring, on {', '.join(sorted(set(about['device'])))}.")


def spread(study: Study) -> str:
    """Checkpoints, recipes, seeds, datasets in a sentence, and the pre-training run behind them."""
    saved, seeds = study.checkpoints, study.tuning.seeds
    tokens = saved.steps[-1] * saved.pretraining.batch_size * saved.pretraining.length
    return (f"{len(saved.steps)} checkpoints of one pre-training run of {tokens:,} tokens, {len(study.recipes)} recipes with "
            f"base, {seeds} seed{'s' * (seeds > 1)} of tuning, {len(study.probing.datasets)} datasets with at most "
            f"{study.probing.items} items each.")
