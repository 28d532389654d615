"""Finding 1, dataset dichotomy: what its notebook shows and the verdicts it reaches.

Every function takes the study and scored rows and shows one figure, or returns one table or sentence whose numbers are
computed here. Claims 1a and 1b and their rules are stated in the notebook, above the data.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from pretune import figures, records, statistics
from pretune.figures import quote
from pretune.params import Study
from pretune.plan import cells
from pretune.statistics import Estimate, Verdict
from pretune.tasks.registry import REGISTRY

NOT_LEARNED = "not learned"
CONSTANT = 1 - statistics.MARGIN  # a share of one prediction above this is a constant answer


@dataclass(frozen=True)
class Completeness:
    """How much of the planned grid is there."""

    expected: int
    missing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        if not self.missing:
            return f"The grid is complete: {self.expected} of {self.expected} cells have all their rows."
        names = ", ".join(f"`{name}`" for name in self.missing)
        return (f"**This page is partial and gives no verdict:** {len(self.missing)} of {self.expected} cells are missing: "
                f"{names}. Run `pretune run` to measure them.")


def titles(study: Study) -> dict[str, str]:
    """Dataset names as pages say them, each with its world."""
    world = "" if study.datasets.source == "folder" else " (microworld)"
    return {name: REGISTRY[name].title + world for name in study.probing.datasets if REGISTRY[name].kind != "text"}


def described(study: Study) -> str:
    """The study in a few sentences."""
    steps = ", ".join(map(str, study.checkpoints.steps))
    recipes = ", ".join(f"`{name}`" for name in study.recipes)
    return (f"**{html.escape(study.title)}.** {len(study.checkpoints.steps)} checkpoints, saved at optimizer steps {steps}; "
            "the last "
            f"{study.checkpoints.late} are neighbours. Recipes: {recipes}. {study.probing.shots} shots are asked for, at most "
            f"{study.probing.items} items a dataset, {study.tuning.seeds} seed{'s' * (study.tuning.seeds > 1)}. "
            "Datasets whose prompts do not fit the context get fewer shots, as the table says.")


def provenance(study: Study, only: tuple[str, ...]) -> pd.DataFrame:
    """Who measured the rows, with what, and for how long."""
    about = records.provenance(study)
    if only:
        about = about[about["model"].str.split(".").str[0].isin(only)]
    seconds = pd.DataFrame(list(about["seconds"])).sum()
    versions = " / ".join(sorted({" ".join(f"{name} {number}" for name, number in one.items() if name in
                                           ("python", "torch", "transformers")) for one in about["versions"]}))
    lines = {
        "records": str(len(about)),
        "versions": versions,
        "commit": ", ".join(sorted({(one or "none")[:10] for one in about["commit"]})),
        "device": ", ".join(sorted(set(about["device"]))),
        "precision": ", ".join(sorted({f"training {a}, scoring {b}" for a, b in
                                       zip(about["training_precision"], about["scoring_precision"], strict=True)})),
        "parameters": ", ".join(f"{number:,}" for number in sorted(set(about["parameters"]))),
        "seconds of process": ", ".join(f"{phase} {value:.0f}" for phase, value in seconds.items()),
        "items left out (too long)": str(sum(len(items) for one in about["left_out"] for items in one.values())),
    }
    return pd.DataFrame({"": lines})


def completeness(study: Study, only: tuple[str, ...]) -> Completeness:
    lacking = tuple(cell.model.name for cell in records.missing(study, only))
    return Completeness(len(cells(study, only)), lacking)


def datasets(study: Study, base: pd.DataFrame) -> pd.DataFrame:
    """What each dataset asks, how it is scored, how many items and shots there are."""
    lines = {}
    for name, title in titles(study).items():
        part, about = base[base["dataset"] == name], REGISTRY[name]
        score = "ROUGE-L" if about.kind == "generation" else "accuracy"
        by = "" if about.normalisation == "sum" else f" per {about.normalisation.rstrip('s')}"
        lines[title] = {
            "kind": about.kind, "score": score + (by if score == "accuracy" else ""),
            "split": f"<code>{about.evaluation}</code>", "items": part["item"].nunique(),
            "shots": ", ".join(map(str, sorted(part["shots"].unique()))), "no skill": float(part["baseline"].mean()),
        }
    return pd.DataFrame(lines).T


def show_curves(study: Study, base: pd.DataFrame) -> None:
    """Base score against pre-training tokens, one panel a dataset."""
    lines, names = statistics.curve(base, study.protocol.reporting), titles(study)
    figure, axes = figures.panels(len(names))
    for panel, (name, title) in zip(axes, names.items(), strict=True):
        floor, _ = statistics.noise_floor(base[base["dataset"] == name])
        figures.score_curve(panel, lines[lines["dataset"] == name], floor)
        panel.set_title(title)
        panel.set_ylim(-0.03, 1.03)
    for panel in axes[::3]:
        panel.set_ylabel("score, 0 to 1")
    axes[0].legend(fontsize="small", loc="upper left")
    figure.suptitle("Score of the untuned model along pre-training, 95 % interval over items", x=0.01, ha="left")
    figures.show(figure, alt=f"Curves of base score over pre-training tokens for {', '.join(names.values())}.")


def first_look(study: Study, base: pd.DataFrame) -> pd.DataFrame:
    """The naive reading: first and last score of each dataset, and where half of a rise was passed."""
    lines = {}
    for name, title in titles(study).items():
        part = statistics.curve(base[base["dataset"] == name], study.protocol.reporting)
        line = {"score": part["score"].iloc[-1], "no skill": part["baseline"].iloc[-1]}
        if len(part) > 1:
            line = {"first score": part["score"].iloc[0], "last score": line["score"], "no skill": line["no skill"]}
            found = statistics.bracket(part)
            line["half of the rise between steps"] = f"{found[0]} and {found[1]}" if found else "no rise"
            line["noise floor"] = f"{statistics.noise_floor(base[base['dataset'] == name])[0]:.3f}"
        lines[title] = line
    return pd.DataFrame(lines).T


def show_before_after(study: Study, rows: pd.DataFrame, checkpoint: str) -> None:
    """Base against each recipe on every dataset, for one checkpoint."""
    base = rows[rows["recipe"] == "base"]
    recipes = [recipe for recipe in study.recipes if recipe in set(rows["recipe"]) - {"base"}]
    figure, axes = figures.panels(len(recipes), columns=2, height=3.2)
    for panel, recipe in zip(axes, recipes, strict=True):
        tuned = rows[rows["recipe"] == recipe]
        names = {name: title for name, title in titles(study).items() if name in set(tuned["dataset"])}
        before, after = ([statistics.over_items(part[part["dataset"] == name]) for name in names] for part in (base, tuned))
        levels = [base.loc[base["dataset"] == name, "baseline"].mean() for name in names]
        figures.before_after(panel, list(names.values()), before, after, levels)
        panel.set_title(f"recipe {recipe}, tuned on {REGISTRY[study.recipes[recipe].dataset].title}")
        panel.set_xlabel("score, 0 to 1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(f"Before and after tuning at {checkpoint}, 95 % interval over items", x=0.01, ha="left")
    figures.show(figure, alt=f"Scores before and after tuning at {checkpoint}, one panel per recipe, one line per dataset.")


def show_label_shares(study: Study, base: pd.DataFrame) -> None:
    """What the model predicts, per checkpoint, for the datasets with fixed labels."""
    names = _classifications(study)
    shares = statistics.predicted_shares(base[base["dataset"].isin(names)])
    figure, axes = figures.panels(len(names), columns=2, height=2.9)
    for panel, name in zip(axes, names, strict=True):
        figures.label_shares(panel, shares.loc[name], REGISTRY[name].labels)
        panel.set_title(titles(study)[name])
    axes[0].set_ylabel("share of predictions")
    most = max(names, key=lambda name: len(REGISTRY[name].labels))
    figure.legend(*axes[names.index(most)].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle("Which label the untuned model predicts", x=0.01, ha="left")
    figures.show(figure, alt=f"Stacked shares of predicted labels for {', '.join(titles(study)[name] for name in names)}.")


def constant_answers(study: Study, base: pd.DataFrame) -> str:
    """Share of the most frequent prediction and balanced accuracy at the last checkpoint shown."""
    last, said = base[base["step"] == base["step"].max()], []
    for name in _classifications(study):
        part = last[last["dataset"] == name]
        label, found = _most_frequent(part)
        balanced = statistics.balanced_accuracy(part)
        said.append(f"on {titles(study)[name]} it says “{REGISTRY[name].labels[label]}” to {found.value:.0%} of the items, and "
                    "its "
                    f"balanced accuracy minus chance is {balanced}")
    return f"At {last['checkpoint'].iloc[0]}, " + "; ".join(said) + "."


def rescored(study: Study, base: pd.DataFrame, normalisation: str) -> pd.DataFrame:
    """The same rows under another scoring, generation left out: it has none."""
    chosen = base[base["rouge_l"].isna()].drop(columns=["prediction", "score"])
    return records.scored(chosen, normalisation)


def side_by_side(study: Study, base: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Score at the last checkpoint shown, headline and calibrated, and the share of the most frequent prediction."""
    lines = {}
    for name in other["dataset"].unique():
        line = {}
        for label, part in (("headline", base), ("calibrated", other)):
            part = part[(part["dataset"] == name) & (part["step"] == part["step"].max())]
            found = statistics.over_items(part)
            line[f"{label} score"] = f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
            if REGISTRY[name].kind == "classification":
                line[f"one label, {label}"] = _most_frequent(part)[1].value
        lines[titles(study)[name]] = line
    return pd.DataFrame(lines).T


def calibration_says(study: Study, base: pd.DataFrame, calibrated: pd.DataFrame) -> str:
    """Whether any dataset sorts differently under calibrated scoring."""
    kept = base[base["rouge_l"].isna()]
    one, two = (statistics.sort_datasets(rows)["group"] for rows in (kept, calibrated))
    moved = [f"{titles(study)[name]} ({one[name]} by the headline scoring, {two[name]} when calibrated)"
             for name in one.index if one[name] != two[name]]
    return "Sorted by the rule below on all items, calibration moves " + (", ".join(moved) if moved else "no dataset") + "."


def show_tuning(study: Study, checkpoint: str) -> None:
    """Loss of every recipe at one checkpoint."""
    figure, axes = figures.panels(1, height=3.0)
    for cell in (cell for cell in cells(study, (checkpoint,)) if cell.model.recipe != "base"):
        log = records.training_log(study, cell.model)
        colour = figures.LABEL_COLOURS[list(study.recipes).index(cell.model.recipe) % len(figures.LABEL_COLOURS)]
        first = cell.model.seed == 0
        axes[0].plot(log["step"], log["loss"], color=colour, lw=1, label=cell.model.recipe if first else None)
    axes[0].set(xlabel="optimizer step", ylabel="loss (nats per token that counts)", title=f"Tuning at {checkpoint}")
    axes[0].legend(fontsize="small")
    figures.show(figure, alt=f"Training loss of each recipe at {checkpoint}.")


def show_prompts(study: Study, rows: pd.DataFrame, checkpoint: str) -> None:
    """The first item of every dataset: prompt, answer before and after each recipe, gold."""
    shown = checkpoint if checkpoint != "all" else rows.loc[rows["step"].idxmax(), "checkpoint"]
    texts = records.load_texts(study, {"checkpoint": shown, "seed": 0})
    lines = {}
    for name, title in titles(study).items():
        part = rows[(rows["dataset"] == name) & (rows["checkpoint"] == shown) & (rows["seed"] == 0) & (rows["draw"] == 0)]
        item, line = part["item"].iloc[0], {}
        for row in part[part["item"] == item].itertuples():
            said = texts[(texts["probe"] == row.probe) & (texts["item"] == item) & (texts["recipe"] == row.recipe)].iloc[0]
            answer = said["output"] if row.prediction < 0 else said["choices"][row.prediction]
            line |= {"prompt": quote(said["prompt"], 260), "gold": quote(said["choices"][row.gold].strip()),
                     row.recipe: quote(answer.strip(), 120)}
        lines[title] = line
    frame = pd.DataFrame(lines).T
    figures.table(frame[["prompt", "gold", *(recipe for recipe in study.recipes if recipe in frame)]])


def show_gains(study: Study, base: pd.DataFrame) -> None:
    """Gain of every dataset on half A, with the band that does not count."""
    found = statistics.sort_datasets(statistics.half(base, "A")).loc[list(titles(study))]
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(found) + 1.4))
    figures.intervals(axes, list(titles(study).values()), list(found["gain"]), list(found["group"]), statistics.MARGIN)
    axes.set(xlabel="gain: score late minus score early", title="Gain along pre-training on half A, 95 % interval")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figures.show(figure, alt="Gain of each dataset with its interval, coloured by group.")


def sorting(study: Study, base: pd.DataFrame) -> pd.DataFrame:
    """The three-way sorting on half A, and the gain on half B that it is judged by."""
    found = statistics.sort_datasets(statistics.half(base, "A")).loc[list(titles(study))]
    fresh = statistics.sort_datasets(statistics.half(base, "B")).loc[list(titles(study))]
    return pd.DataFrame({
        "group": found["group"].to_numpy(), "gain (half A)": _ranges(found["gain"]), "lift (half A)": _ranges(found["lift"]),
        "gain (half B)": _ranges(fresh["gain"]),
    }, index=list(titles(study).values()))


def verdicts(study: Study, base: pd.DataFrame, grid: Completeness) -> list[Verdict]:
    """Claims 1a and 1b, judged by the rules above the data."""
    provisional = study.tuning.seeds < 3
    if grid.missing:
        return [Verdict(claim, "undecided", provisional, None, "the grid is partial") for claim in ("1a", "1b")]
    groups = statistics.sort_datasets(statistics.half(base, "A"))["group"]
    return [_claim_1a(base, groups, provisional), _claim_1b(study, base, groups, provisional)]


def told(verdict: Verdict) -> str:
    """A verdict as prose."""
    mark = ", provisional: fewer than three seeds" if verdict.provisional else ""
    effect = f" Effect {verdict.effect}." if verdict.effect else ""
    return f"**Claim {verdict.claim}: {verdict.verdict}{mark}.**{effect} {verdict.why}"


def checkpoint_answer(study: Study, rows: pd.DataFrame, checkpoint: str) -> str:
    """What tuning changed at one checkpoint, on the dataset it was tuned on."""
    said = []
    for recipe in study.recipes:
        name = study.recipes[recipe].dataset
        if name in titles(study):
            base, tuned = (statistics.over_items(rows[(rows["recipe"] == which) & (rows["dataset"] == name)])
                           for which in ("base", recipe))
            said.append(f"`{recipe}` moves {titles(study)[name]} from {base.value:.2f} ({base.low:.2f} to {base.high:.2f}) to "
                        f"{tuned.value:.2f} ({tuned.low:.2f} to {tuned.high:.2f}, n = {tuned.n})")
    return f"At {checkpoint}, " + "; ".join(said) + "."


def _claim_1a(base: pd.DataFrame, groups: pd.Series, provisional: bool) -> Verdict:
    counts = {name: int((groups == name).sum()) for name in ("learned", NOT_LEARNED, "undecided")}
    sizes = ", ".join(f"{count} {name}" for name, count in counts.items())
    effect = statistics.group_difference(statistics.half(base, "B"), groups)
    why = f"Sorted on half A: {sizes}."
    if effect is None:
        return Verdict("1a", "undecided", provisional, None, f"{why} It is asked only where both groups have two sets.")
    return statistics.judge("1a", effect, provisional, f"{why} The effect is the difference of mean gains on half B.")


def _claim_1b(study: Study, base: pd.DataFrame, groups: pd.Series, provisional: bool) -> Verdict:
    names = [name for name in _classifications(study) if groups[name] == NOT_LEARNED]
    if not names:
        return Verdict("1b", "undecided", provisional, None, "No classification set is sorted as not learned.")
    late, found, said = base[base["late"]], [], []
    for name in names:
        part = late[late["dataset"] == name]
        found.append(_most_frequent(part)[1])
        said.append(f"{titles(study)[name]}: share of the most frequent prediction {found[-1].value:.2f} ({found[-1].low:.2f} to "
                    f"{found[-1].high:.2f}), balanced accuracy minus chance {statistics.balanced_accuracy(part)}")
    verdict = "undecided"
    if all(one.low > CONSTANT for one in found):
        verdict = "supported"
    elif all(one.high < CONSTANT for one in found):
        verdict = "not supported"
    return Verdict("1b", verdict, provisional, None, "; ".join(said) + ".")


def _classifications(study: Study) -> list[str]:
    return [name for name in titles(study) if REGISTRY[name].kind == "classification"]


def _most_frequent(part: pd.DataFrame) -> tuple[int, Estimate]:
    """The label predicted most often, and its share of the items (the mean over checkpoints, where there are several)."""
    label = int(part["prediction"].mode().iloc[0])
    items = part["item"].nunique()
    said = (part["prediction"] == label).groupby(part["item"]).mean().sum()
    return label, statistics.share(int(np.round(said)), items)


def _ranges(found: pd.Series) -> list[str]:
    return [f"{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})" for one in found]
