"""Brings cells, and the runs that collect events in them, into the ledger."""

from collections.abc import Iterable, Sequence

from pubsubflow.manager.unit_of_work import CellWork, GateWork, Ledger, Start
from pubsubflow.model.schedule.condition_state import decode_cell
from pubsubflow.store.manager_transaction import FoldTransaction, Row


class Cells:
    """Reads cells of locked gates."""

    def __init__(self, ledger: Ledger, transaction: FoldTransaction) -> None:
        self._ledger = ledger
        self._transaction = transaction

    async def load(self, asked: Iterable[tuple[GateWork, str]]) -> None:
        """Make cells available; the runs that collect events in them, too."""
        missing = self.missing(asked)
        await self.take_in(await self._transaction.fetch_rows("read_cells", missing))

    @staticmethod
    def missing(asked: Iterable[tuple[GateWork, str]]) -> list[tuple[int, str]]:
        """Return the (dag, key) of cells that are not available yet, in order."""
        return sorted({(gate.dag, key) for gate, key in asked if key not in gate.cells})

    async def open_of(self, gate: GateWork) -> list[CellWork]:
        """Return the cells of a DAG in which something is pending or forming."""
        rows = await self._transaction.fetch("read_open_cells", [gate.dag])
        await self.take_in([row for row in rows if row["key"] not in gate.cells])
        return [cell for _, cell in sorted(gate.cells.items()) if cell.open]

    async def take_in(self, rows: Sequence[Row]) -> None:
        """Take rows of cells of locked gates in."""
        forming = {}
        for row in rows:
            gate = self._ledger.gates[row["dag"]]
            cell = CellWork(row["key"], decode_cell(row["state"]))
            gate.cells[row["key"]] = cell
            if cell.cell.forming and cell.cell.forming not in self._ledger.starts:
                forming[cell.cell.forming] = (gate, row["key"])
        if not forming:
            return
        for row in await self._transaction.fetch("read_collected", sorted(forming)):
            gate, key = forming[row["id"]]
            self._ledger.starts[row["id"]] = Start(
                row["id"],
                row["run_id"],
                gate,
                row["run_key"],
                row["kind"],
                row["cause"],
                row["created_at"],
                cell=key,
                logical_time=row["logical_time"],
                partition=row["partition"],
                stored=True,
                forming=True,
            )
