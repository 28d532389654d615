"""What may stand in the line after `pretune`, and the command that it calls."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from pretune.cli import commands


def parser() -> argparse.ArgumentParser:
    """The parser of the line; what it gives back holds the `command` to call."""
    whole = argparse.ArgumentParser(
        prog="pretune", description="How pre-training and fine-tuning depend on each other."
    )
    group = whole.add_subparsers(required=True, metavar="COMMAND")
    _add(group, commands.do_plan, "print the resolved study, its cells and what it costs")
    _add_run(group)
    _add(group, commands.do_status, "say what is done, missing and stale").add_argument(
        "--json", action="store_true", help="for programs"
    )
    _add(
        group, commands.do_report, "execute stale notebooks and render pages, measure nothing"
    ).add_argument(
        "--keep",
        action="store_true",
        help="also copy the pages for all checkpoints to outputs/reference",
    )
    _add(
        group, commands.do_data, "fetch the datasets and print what they hold, and prompts"
    ).add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="measure prompts with this model's tokenizer and context",
    )
    said = "list what a repository of the Hub has, with tokens and gaps"
    _add(group, commands.do_checkpoints, said, study=False).add_argument("repo", help="owner/name")
    _add_new(group)
    said = "render every study kept in outputs/reference as one site"
    publish = _add(group, commands.do_publish, said, study=False)
    publish.add_argument("folder", type=Path, help="where to")
    return whole


def _add(group, command: Callable, said: str, study: bool = True) -> argparse.ArgumentParser:
    """A command, named as the function that does it (`do_run`); most take a study."""
    parser = group.add_parser(command.__name__.removeprefix("do_"), help=said)
    parser.set_defaults(command=command)
    if study:
        parser.add_argument("study", help="a name under params/, or the path of a .yaml file")
        _add_overrides(parser)
    return parser


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one value, for example tuning.seeds=3; may be given often",
    )


def _add_new(group) -> None:
    said = "write params/NAME.yaml for checkpoints of your own, or of the Hub"
    new = _add(group, commands.do_new, said, study=False)
    new.add_argument(
        "study", help="of the study, and so of its file under params/; or the path of a .yaml file"
    )
    where = new.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--folder", type=_whole, help="a folder of this machine, with one for each checkpoint"
    )
    where.add_argument(
        "--repo", type=_repository, help="owner/name on the Hub, with a branch for each checkpoint"
    )
    new.add_argument(
        "--tokens-per-step",
        type=_positive,
        metavar="N",
        help="sequences of a step x their length, where the names do not say tokens",
    )
    new.add_argument(
        "--rows", type=_whole, metavar="FOLDER", help="datasets from here (default: the Hub)"
    )


def _add_run(group) -> None:
    said = "measure what is missing, execute notebooks, render pages"
    run = _add(group, commands.do_run, said, study=False)
    run.add_argument(
        "studies",
        nargs="+",
        metavar="study",
        help="names under params/, paths of .yaml files, patterns such as '*quick', or all: every "
        "one on generated text that takes at most 6 h here",
    )
    _add_overrides(run)
    run.add_argument(
        "--only", nargs="+", default=[], metavar="CHECKPOINT", help="these checkpoints only"
    )
    run.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="processes at once (default: one per core, or one per GPU)",
    )
    run.add_argument(
        "--on",
        metavar="SCHEDULER",
        help="measure on the workers of a Dask cluster: its scheduler's file or address",
    )
    run.add_argument("--no-notebooks", action="store_true", help="measure only")
    run.add_argument(
        "--sweep",
        action="store_true",
        help="only the grid of learning rates; prints and keeps its table",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is refused; it must be a number such as 1 or 2")
    return int(text)


def _whole(folder: str) -> str:
    """A folder as it is found from anywhere."""
    return str(Path(folder).resolve())


def _repository(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"{text} is refused; it must be owner/name")
    return text
