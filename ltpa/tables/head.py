"""What a table says before its numbers: which scale, which data stand in for the paper's, how far to trust it."""

from collections.abc import Sequence

from ltpa.tables.published import Published
from ltpa.tables.spec import TableSpec


def head(spec: TableSpec, published: Sequence[Published]) -> tuple[str, ...]:
    """Paragraphs for the head: the warning of an incomparable scale, the stand-ins of the table's roles, the note."""
    roles = dict.fromkeys(
        name.partition("/")[0] for key in ("source", "target") for name in (getattr(entry, key) for entry in published)
    )
    players = {role: spec.roles[role] for role in roles if stand_in(role, spec)}
    paragraphs = []
    if not spec.comparable:
        data = "stand-in data at the" if players else "the"
        origin = f"These numbers come from {data} {spec.scale} scale"
        paragraphs.append(f"{origin} and are not comparable with the paper: verdicts are withheld.")
    if players:
        named = "; ".join(f"{dataset} ({spec.standins[dataset]}) plays {role}" for role, dataset in players.items())
        paragraphs.append(f"Stand-ins: {named}.")
    if spec.scale_note:
        note = spec.scale_note.rstrip(".")
        paragraphs.append(f"{note[0].upper()}{note[1:]}.")
    return tuple(paragraphs)


def stand_in(role: str, spec: TableSpec) -> str:
    """` [dataset]` where a stand-in plays `role` (a split after a slash is ignored), else nothing."""
    dataset = spec.roles.get(role.partition("/")[0], "")
    return f" [{dataset}]" if dataset in spec.standins else ""
