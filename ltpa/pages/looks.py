"""Where networks look: the same images by network and level."""

from ltpa.pages.run import Run
from ltpa.pages.site import Site


def add(site: Site, run: Run) -> None:
    """Add the page."""
    site.page("looks.html", "looks.html")
