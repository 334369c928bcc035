"""Where networks look: the same images by network and level, outlines laid over them."""

import json
from typing import Any

from ltpa.core.errors import RecordError
from ltpa.pages.run import Run
from ltpa.pages.site import Site
from ltpa.report.looks import FOLDER, IMAGES, LISTING, OTSU, TRUTH


def add(site: Site, run: Run) -> None:
    """Add the page, and the strips of pictures that it lays over each other."""
    listing: dict[str, Any] = {"labels": [], "truth": False, "networks": []}
    folder = f"figures/{FOLDER}"
    path = run.results / folder / LISTING
    if any(f"{FOLDER}/{LISTING}" in pictures.index.files for pictures in run.pictures):
        try:
            listing = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            remedy = f"draw the figures anew (rm {path.parent.with_name('index.json')})"
            raise RecordError(f"{path}: not readable ({error}); {remedy}") from error
    levels = list(dict.fromkeys(level for network in listing["networks"] for level in network["levels"]))
    site.page(
        "looks.html",
        "looks.html",
        listing=listing,
        levels=sorted(levels, key=lambda level: level == "combined"),  # the combined map last, whatever the networks
        folder=folder,
        images=IMAGES,
        truth=TRUTH,
        otsu=OTSU,
    )
