"""The one error that a person who writes study files meets."""

import re


class StudyError(ValueError):
    """Something in a study file, a profile or the command line has to be changed by hand.

    `problems` holds one line for each thing that is wrong; `str` joins them.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(dict.fromkeys(one_line(problem) for problem in problems))
        super().__init__("\n".join(self.problems))


class ChangedError(StudyError):
    """A file is not what it was when the trial was planned; planned anew, it is another trial."""


def one_line(text: str) -> str:
    """`text` on one line that a terminal only shows: white space is one blank, the rest escaped."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def masked(text: str) -> str:
    """`text` without the user names and passwords of the addresses in it."""
    text = re.sub(r"://(?:[^\s/'\"]*|[^\s/:'\"]+:[^\s'\"]*)@", "://***@", text)
    return re.sub(r"(?i)([?&]\w*(?:password|passwd|token|secret)=)[^&\s'\"]+", r"\1***", text)
