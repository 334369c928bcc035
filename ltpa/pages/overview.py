"""The first page: what the scale can say, what failed, counters, verdicts, pictures."""

from pathlib import PurePosixPath

from ltpa.pages.cells import shown
from ltpa.pages.run import Run
from ltpa.pages.site import Site
from ltpa.pages.tables import page_of, strip

MEMORABLE = "figures/map-use.svg"


def add(site: Site, run: Run) -> None:
    """Add the first page, and the pictures that it shows."""
    cards = []
    for pictures in run.pictures:
        for name in sorted(pictures.index.files):
            path = PurePosixPath(pictures.folder, name)
            file = run.results / path
            if path.suffix == ".png" and file.is_file():
                site.add(str(path), file.read_bytes())
                cards.append((str(path), path.stem.replace("-", " "), pictures.index.captions.get(name, "")))
    memorable = run.results / MEMORABLE
    is_known = memorable.is_file() and any(each.stage == "causal" for each in run.records.values())
    if is_known:
        site.add(MEMORABLE, memorable.read_bytes())
    site.page(
        "index.html",
        "index.html",
        strips=[(made, page_of(made.name), strip(shown(made.table))) for made in run.tables],
        memorable=MEMORABLE if is_known else "",
        cards=[card for card in cards if "/overlays/" not in card[0]],
        overlays=[card for card in cards if "/overlays/" in card[0]],
        missing={name: why for each in run.pictures for name, why in each.index.missing.items()},
    )
