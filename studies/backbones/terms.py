"""Terms of use that are shown and must be accepted before weights are fetched."""

import os
from dataclasses import dataclass

from studies.archives import Archive, ArchiveError
from studies.archives import fetch as fetch_archive

VARIABLE = "BASIS_ZOO_ACCEPT_TERMS"
"""Names of the terms that the user accepts, separated by commas."""


class TermsNotAccepted(ArchiveError):
    """The weights come under terms that the user has not accepted; the message names them."""


@dataclass(frozen=True)
class Terms:
    """Terms of use that come with a package."""

    name: str
    """The word in `VARIABLE` that accepts them."""
    address: str
    """Where their author publishes them."""
    archive: Archive
    """Holds their text, the first of its members."""

    def require(self, backbone: str) -> None:
        """Fetch the text and refuse unless it is accepted.

        Raises:
            TermsNotAccepted: they are not.
            ArchiveError: the text cannot be had.
        """
        text = fetch_archive(self.archive) / self.archive.members[0].target
        if self.name not in os.environ.get(VARIABLE, "").replace(" ", "").split(","):
            raise TermsNotAccepted(
                f"backbone {backbone} is no open-source release: it comes under the terms in "
                f"{text} ({self.address}). Read them; if you accept, set {VARIABLE}={self.name} "
                "and run the same command again"
            )
