"""What becomes of pending events: consumed by a run, too old, dropped, or never accepted."""

from collections.abc import Iterable
from datetime import UTC, datetime

from pubsubflow.manager.unit_of_work import CellWork, Fate, GateWork, Ledger, LoggedEvent, Start
from pubsubflow.model.schedule.condition_state import expiry
from pubsubflow.model.schedule.conditions import Input


class Consuming:
    """Takes events out of the places of cells; writes nothing but the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def consume(self, gate: GateWork, cell: CellWork, places: Iterable[int], start: Start) -> None:
        """Give a run what is pending in places."""
        for number in places:
            self._expire(gate, cell, gate.version.inputs[number])
            start.fresh.extend((event, number) for event in cell.fresh[number])
            if cell.stored[number]:
                start.drained.append((cell.key, number))
                start.drained_count += cell.stored[number]
            cell.stored[number] = 0
            cell.fresh[number] = []

    def _expire(self, gate: GateWork, cell: CellWork, place: Input) -> None:
        """Take out of a place what is too old for it now."""
        limit = expiry(place, cell.cell)
        if limit is None:
            return
        before = datetime.fromtimestamp(limit, UTC)
        if cell.stored[place.place]:
            self._ledger.expiries.append((gate.dag, cell.key, place.place, before))
        kept = []
        for event in cell.fresh[place.place]:
            if event.moment(self._ledger.now) < before:
                reason = "too old when the condition held"
                self.fate(gate, event, place.place, cell.key, "expired", reason)
            else:
                kept.append(event)
        cell.fresh[place.place] = kept

    def drop(
        self, gate: GateWork, cell: CellWork, places: Iterable[int], fate: str, reason: str
    ) -> None:
        """Take everything out of places."""
        for number in places:
            for event in cell.fresh[number]:
                self.fate(gate, event, number, cell.key, fate, reason)
            if cell.stored[number]:
                self._ledger.drops.append((gate.dag, cell.key, number, fate, reason))
            cell.stored[number] = 0
            cell.fresh[number] = []

    def fate(
        self, gate: GateWork, event: LoggedEvent, place: int, cell: str, fate: str, reason: str
    ) -> None:
        """Note what became of an event that no run consumes."""
        self._ledger.fates.append(Fate(event, gate.dag, place, cell, fate, reason))
