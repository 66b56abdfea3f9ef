"""What every store of tables asks of a query before it begins."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stores.errors import StoreBusy, UnknownColumn
from stores.tables import Filter, Table


def chosen_columns(table: Table, columns: Sequence[str], filters: Sequence[Filter]) -> tuple[str, ...]:
    """Return the columns that are meant; none named means all. Raises UnknownColumn, also for one named twice."""
    for name in (*columns, *(each.column for each in filters)):
        if name not in table.columns:
            raise UnknownColumn(f"The table {table.name} has no column {name!r}.")
        if list(columns).count(name) > 1:
            raise UnknownColumn(f"The column {name} is named twice.")
    return tuple(columns) or table.columns


def check_room(open: Collection[object], most: int) -> None:
    """Raise StoreBusy where ``most`` snapshots are open."""
    if len(open) >= most:
        raise StoreBusy("As many exports are running as may; try again later.")
