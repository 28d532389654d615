"""What the command line turns into one line and an exit code."""


class StudyError(ValueError):
    """A study that cannot be: a line naming file, key, value and what is allowed, or one for
    each bad dataset. Exit code 2.
    """


class Damaged(Exception):
    """A thing of the cache that is not what was written; it was set aside and is to be made
    again.
    """


class RunError(RuntimeError):
    """A run that could not do all it should; the message lists what failed and what to do. Exit
    code 1.
    """


class HubError(RunError):
    """What the Hub did not give: one line naming the repository, the reason and what to do."""


class Outage(HubError):
    """The Hub did not answer for as long as it was waited for. It may be asked again."""
