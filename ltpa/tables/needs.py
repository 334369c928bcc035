"""Which runs a table draws on, so that the DAG asks for exactly those."""

from collections.abc import Collection, Mapping, Sequence

from ltpa.tables.declaration import Declaration
from ltpa.tables.published import Published
from ltpa.tables.slots import Address, place, resolve


def needed(
    declaration: Declaration, published: Sequence[Published], roles: Mapping[str, str], variants: Collection[str]
) -> list[tuple[str, str, str]]:
    """(stage, dataset, variant) of every run behind the table's cells, each once, in the table's order.

    `roles` maps the roles that the scale fills to datasets. Cells of absent roles or variants, quoted values and dashes
    ask for nothing. A table of datasets gives ("prepare", dataset, "") for each of its roles.
    """
    if declaration.kind == "datasets":
        sources = dict.fromkeys(entry.source for entry in published)
        return list(dict.fromkeys(("prepare", roles[role], "") for role in sources if role in roles))
    addresses = (resolve(slot, declaration.stage, roles, variants, {}) for slot in place(declaration, published))
    return list(dict.fromkeys(address.run for address in addresses if isinstance(address, Address)))
