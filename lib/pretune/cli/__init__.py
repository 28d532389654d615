"""The command line: `pretune plan | run | status | report | publish | checkpoints | new | data`.

Exit codes: 0 all done, 1 something failed and is listed, 2 the study or the call is not
possible, 130 interrupted.

A command imports what it alone needs when it is called: torch, pandas and papermill take seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

from pretune import storage
from pretune.cli import commands, parser
from pretune.errors import RunError, StudyError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; what it returns is the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    given = parser.parser().parse_args(arguments)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return given.command(given)
    except (StudyError, RunError) as error:
        return commands.refused(error)
    except BrokenPipeError:  # what it was piped to has read enough
        sys.stdout = None
        return 0
    except OSError as error:
        if error.filename is None and not storage.is_full(error):
            raise
        print(
            f"pretune: {error}; make room or give access, and run again. PRETUNE_OUTPUTS names "
            "another folder to write to",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        named = [given.study] if "study" in given else getattr(given, "studies", [])
        again = f"; what is done is kept. Continue with: pretune run {' '.join(named)}"
        print(f"\npretune: interrupted{again if named else ''}", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    """The first Ctrl-C ends a run in order, the second at once: workers and kernels end when
    they see their parent gone.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    raise KeyboardInterrupt
