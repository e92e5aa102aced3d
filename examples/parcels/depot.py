"""The depot of one episode: parcels on shelves, looked for and moved about.

A row writes it as `{"P27": "lamp ana A3"}`: what it is, whom it is for, where it lies. A shelf is a zone (A to E) and a
number (1 to 4), and holds as many as you like.
"""

from __future__ import annotations

ZONES = "ABCDE"
NUMBERS = "1234"
_SHOWN_LINES = 3
_SHOWN_CHARS = 20


class Depot:
    """Parcels by id. Its methods are the tools; they raise ValueError for what the agent should read."""

    def __init__(self, parcels: dict[str, str]) -> None:
        self._names: dict[str, str] = {}
        self.shelves: dict[str, str] = {}
        """Where each parcel lies now, by id."""
        for parcel, line in parcels.items():
            what, who, shelf = line.split()
            self._names[parcel] = f"{parcel} {what} for {who}"
            self.shelves[parcel] = shelf

    def list(self, zone: str) -> str:
        """Show the parcels in a zone."""
        if len(zone) != 1 or zone not in ZONES:
            raise ValueError(f"no zone {zone[:_SHOWN_CHARS]}, zones: {' '.join(ZONES)}")
        lines = [self._line(parcel) for parcel, shelf in self.shelves.items() if shelf[0] == zone]
        return "\n".join(lines) or "no parcel"

    def find(self, text: str) -> str:
        """Show the parcels whose line has TEXT in it, three at most."""
        if not text:
            raise ValueError("TEXT is empty")
        lines = [line for line in map(self._line, self.shelves) if text in line]
        more = [f"[{len(lines) - _SHOWN_LINES} more]"] if len(lines) > _SHOWN_LINES else []
        return "\n".join(lines[:_SHOWN_LINES] + more) or "no parcel"

    def move(self, id: str, shelf: str) -> str:
        """Put a parcel on another shelf."""
        if id not in self.shelves:
            raise ValueError(f"no parcel {id[:_SHOWN_CHARS]}")
        if len(shelf) != 2 or shelf[0] not in ZONES or shelf[1] not in NUMBERS:
            raise ValueError(
                f"no shelf {shelf[:_SHOWN_CHARS]}, shelves: {ZONES[0]}{NUMBERS[0]} to {ZONES[-1]}{NUMBERS[-1]}"
            )
        before = self.shelves[id]
        if shelf == before:
            raise ValueError(f"{id} is on {shelf} already")
        self.shelves[id] = shelf
        return f"{self._names[id]} moved from {before} to {shelf}"

    def _line(self, parcel: str) -> str:
        return f"{self._names[parcel]} on {self.shelves[parcel]}"
