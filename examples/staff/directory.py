"""The staff directory that the server keeps: some thousand people, found by words, a page at a time.

A person is `{"id": "7846", "name": "dora oakley", "phone": "4360", …}`. Nothing in it ever changes; what is kept of an
episode is its last search.
"""

from __future__ import annotations

from collections.abc import Sequence

_A_PAGE = 3
_SHOWN_CHARS = 20


class Directory:
    """Everybody, by id."""

    def __init__(self, people: Sequence[dict[str, str]]) -> None:
        self._names = {person["id"]: person["name"] for person in people}
        self._facts = {
            person["id"]: [f"{key} {value}" for key, value in person.items() if key not in ("id", "name")]
            for person in people
        }
        self._words = {
            id: frozenset(" ".join([name, *self._facts[id]]).lower().split()) for id, name in self._names.items()
        }

    def find(self, text: str) -> list[str]:
        """A line for each person whom all words fit: id and name, then the facts that have one of the words."""
        words = set(text.lower().split())
        return [self._line(id, words) for id, known in self._words.items() if words <= known]

    def read(self, id: str) -> str:
        """All facts about one person; raises ValueError when there is none of this id."""
        if id not in self._names:
            raise ValueError(f"no id {id[:_SHOWN_CHARS]}")
        return f"{self._names[id]}: {', '.join(self._facts[id])}"

    def _line(self, id: str, words: set[str]) -> str:
        facts = [fact for fact in self._facts[id] if not words.isdisjoint(fact.lower().split())]
        return f"{id} {self._names[id]}" + (f": {', '.join(facts)}" if facts else "")


class Reader:
    """One episode's use of the directory. Its methods are the tools; they raise ValueError for the agent to read."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._found: list[str] = []

    def search(self, text: str) -> str:
        """The first page of the people whom all words fit."""
        if not text.split():
            raise ValueError("TEXT is empty")
        self._found = self._directory.find(text)
        return self.page(1) if self._found else "no match"

    def page(self, number: int) -> str:
        """A page of the last search."""
        n_pages = -(-len(self._found) // _A_PAGE)
        if not 1 <= number <= n_pages:
            raise ValueError(f"no such page, the last search has {n_pages}" if n_pages else "search first")
        lines = self._found[(number - 1) * _A_PAGE : number * _A_PAGE]
        return "\n".join([*lines, f"[page {number} of {n_pages}]"] if n_pages > 1 else lines)

    def read(self, id: str) -> str:
        """All facts about one person."""
        return self._directory.read(id)
