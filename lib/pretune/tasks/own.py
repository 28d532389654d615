"""Tasks of the user's own, in the words of lm-evaluation-harness: what a params file may say of
one, and how its rows become examples.

Templates are Jinja's, filled in a sandbox; there is no Python in a task. What the harness does by
functions (`!function`, `process_docs`, filters of outputs) is refused by its key. A task gives
the prompts, the answers and the likelihoods that it gives there.
"""

from __future__ import annotations

import ast
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, Field, model_validator

from pretune.strict import Frozen, Name
from pretune.tasks.dataset import Dataset
from pretune.tasks.example import ASSISTANT, BLANK, USER, Example, HiddenLabel, RowError

ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@cache
def _compiled(template: str):
    return ENVIRONMENT.from_string(template)


def _checked(template: str) -> str:
    try:
        _compiled(template)
    except TemplateError as error:
        raise ValueError(f"not a Jinja template: {error}") from None
    return template


# the name of a column, or a template of columns
Template = Annotated[str, AfterValidator(_checked)]


class Metric(Frozen):
    """How items are scored; of several, the first is the score of the dataset."""

    # the likeliest answer, by its sum, or by its sum per character; text, by ROUGE-L
    metric: Literal["acc", "acc_norm", "rougeL"]
    aggregation: Literal["mean"] = "mean"
    higher_is_better: Literal[True] = True


class Generation(Frozen):
    """What the harness may be told of generating, as it is done here: greedy, to a newline; how
    long, `probing.new_tokens` says.
    """

    until: tuple[Literal["\n"], ...] = ("\n",)
    do_sample: Literal[False] = False
    temperature: Annotated[float, Field(ge=0, le=0)] = 0.0


class OwnTask(Frozen):
    """A dataset of the user's own. The keys are those of the harness, but for the last ones."""

    # a repository of the Hub, or a folder with <split>.jsonl or .parquet, beside the params file
    # where it is said without its root; left out: the folder of this name in that of `datasets`
    dataset_path: str | None = None
    dataset_name: str | None = None  # the configuration, on the Hub
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None  # scored; without it, that of validation
    fewshot_split: str | None = None  # examples in prompts are of the training split
    output_type: Literal["multiple_choice", "generate_until"]
    doc_to_text: Template
    # the answers: a list, a column, or a template that gives a list
    doc_to_choice: tuple[str, ...] | dict[str, str] | Template | None = None
    # the right answer, or its number
    doc_to_target: Annotated[int, Field(ge=0)] | Template
    description: str = ""  # before the examples
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    generation_kwargs: Generation = Generation()
    metric_list: Annotated[tuple[Metric, ...], Field(min_length=1)]
    # of no consequence here
    task: str | None = None
    task_alias: str | None = None
    tag: str | tuple[str, ...] | None = None
    num_fewshot: int | None = None  # `probing.shots` says it
    should_decontaminate: bool | None = None
    doc_to_decontamination_query: str | None = None
    metadata: dict | None = None
    # not known to the harness: its name on pages; the prompt in other formats, for finding 3; the
    # prompt that says nothing of the item, where it cannot be filled with "N/A"; whose task it
    # is, in its domain or out of it; whether it asks for what pre-training teaches
    title: str = ""
    formats: dict[Literal["instruct", "io"], Template] = {}
    blank: str | None = None
    partner: Name | Literal[""] = ""
    domain: Literal["in", "out", ""] = ""
    knowledge: bool = False

    @model_validator(mode="after")
    def _fits_together(self):
        chooses = self.output_type == "multiple_choice"
        if chooses != (self.doc_to_choice is not None):
            raise ValueError("doc_to_choice and output_type: multiple_choice go together")
        if bad := [one.metric for one in self.metric_list if (one.metric != "rougeL") != chooses]:
            allowed = "acc or acc_norm" if chooses else "rougeL"
            raise ValueError(f"metric_list: {bad[0]} with {self.output_type}: allowed: {allowed}")
        if not self.scored:
            raise ValueError("test_split or validation_split must be given")
        if self.fewshot_split not in (None, self.tuned_on):
            raise ValueError(f"fewshot_split must be the training split, {self.tuned_on}")
        if bool(self.partner) != bool(self.domain):
            raise ValueError("partner and domain go together")
        return self

    @property
    def scored(self) -> str:
        return self.test_split or self.validation_split or ""

    @property
    def tuned_on(self) -> str:
        """The split of training rows and examples; a tenth of it is reserved."""
        return self.training_split or self.scored

    def determining(self) -> dict:
        """What decides prompts, answers and rows."""
        idle = {"task", "task_alias", "tag", "num_fewshot", "should_decontaminate", "metadata"}
        idle |= {"doc_to_decontamination_query", "title", "partner", "domain", "knowledge"}
        return self.model_dump(exclude=idle | {"metric_list"})

    def dataset(self, name: str) -> Dataset:
        """The entry of the registry."""
        local = self.dataset_path is not None and Path(self.dataset_path).is_absolute()
        hub = ("", "") if local or not self.dataset_path else (self.dataset_path, "")
        normalised = self.metric_list[0].metric == "acc_norm"
        fixed = isinstance(self.doc_to_choice, tuple | dict)
        return Dataset(
            name,
            self.title or name,
            (hub[0], self.dataset_name or "default") if hub[0] else hub,
            self.tuned_on,
            self.scored,
            partial(example, task=self),
            metric="rouge_l" if self.output_type == "generate_until" else "accuracy",
            normalisation="characters" if normalised else "sum",
            labels=tuple(_answers(self, {})) if fixed else (),
            partner=self.partner,
            domain=self.domain,
            knowledge=self.knowledge,
            rows=self.dataset_path if local else "",
            world="",
            formats=("default", *self.formats, "chat"),
            description=self.description,
            between=self.fewshot_delimiter,
        )


def example(row: dict, form: str, task: OwnTask) -> Example:
    """The example that a task makes of a row."""
    template = task.formats.get(form, task.doc_to_text)
    prompt, answers = str(_filled("doc_to_text", template, row)), _answers(task, row)
    blank = task.blank
    if blank is None:
        blank = str(_filled("doc_to_text", template, _blanked(row), " of nothing; give `blank`"))
    gold = _right(task, row, answers)
    if task.output_type == "generate_until":
        answers, gold = [gold], 0
    if form == "chat":
        turns = (f"{USER}{one}{ASSISTANT}" for one in (prompt, blank))
        [prompt, blank], delimiter = turns, ""
    else:
        delimiter = task.target_delimiter
    source = prompt if task.output_type == "generate_until" else ""
    return Example(prompt, tuple(delimiter + one for one in answers), gold, blank, source)


def _filled(key: str, template: str, row: dict, of: str = "") -> object:
    """A column of that name, or the template filled from the columns. Raises RowError."""
    if template in row:
        return row[template]
    try:
        return _compiled(template).render(**row)
    except Exception as error:  # a template can fail in as many ways as Python
        raise RowError(f"{key} cannot be filled{of}: {error}") from None


def _answers(task: OwnTask, row: dict) -> list[str]:
    """The answers that compete."""
    given = task.doc_to_choice
    if given is None:
        return []
    if isinstance(given, str):
        given = _filled("doc_to_choice", given, row)
        given = ast.literal_eval(given) if isinstance(given, str) else given
    found = [str(one) for one in (given.values() if isinstance(given, dict) else given)]
    if not all(found):
        raise RowError("doc_to_choice gives an empty answer")
    return found


def _right(task: OwnTask, row: dict, answers: list[str]) -> int | str:
    """The number of the right answer; where nothing competes, the answer."""
    found = task.doc_to_target
    if isinstance(found, str):
        found = _filled("doc_to_target", found, row)
    if not task.doc_to_choice:
        text = " ".join(str(found).split())
        if not text:
            raise RowError("doc_to_target is empty")
        return text
    if isinstance(found, str):
        found = answers.index(found) if found in answers else int(found)
    if found == -1:
        raise HiddenLabel("doc_to_target is -1, which marks a split with hidden labels")
    if not 0 <= found < len(answers):
        raise RowError(f"doc_to_target is {found}, allowed are 0 to {len(answers) - 1}")
    return int(found)


def _blanked(value: object) -> object:
    """A row that says nothing: every text of it is `BLANK`."""
    if isinstance(value, str):
        return BLANK
    if isinstance(value, dict):
        return {key: _blanked(one) for key, one in value.items()}
    return [_blanked(one) for one in value] if isinstance(value, list) else value
