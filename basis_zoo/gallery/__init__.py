"""Every family, to look at: one page, and one picture for the README. Needs matplotlib."""

from basis_zoo.gallery.mosaic import write_mosaic
from basis_zoo.gallery.page import write_gallery

__all__ = ["write_gallery", "write_mosaic"]
