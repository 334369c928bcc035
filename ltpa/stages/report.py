"""Write the report of a scale: a folder of static pages, and the same as a zip."""

from collections.abc import Sequence
from pathlib import Path

from ltpa.core import layout
from ltpa.core.files import atomic_path
from ltpa.pages.build import build_report
from ltpa.pages.site import archive
from ltpa.pages.spec import ReportSpec
from ltpa.stages.table import build

SPEC = ReportSpec


def run(spec: ReportSpec, results: Path, records: Sequence[Path] = ()) -> None:
    """Write `report/` and `report.zip` below `results`; nothing else is read than what lies there.

    Raises:
        RecordError: a record, an index of pictures or the checks are damaged.
        ConfigError: a table's declaration is wrong.
    """
    del records  # the spec names them; those that are missing are named on the pages
    site = build_report(spec, Path(results), build)
    site.write(Path(results) / layout.REPORT)
    with atomic_path(Path(results) / layout.REPORT_ZIP) as temporary:
        temporary.write_bytes(archive(site.files, layout.REPORT))
