"""Text on its way to the reader, piece by piece: each token's share, so that log-probs stay with their text."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from agentrft.runtime.serving.wire import DrawnToken


class Piece(NamedTuple):
    """Some text, and the token that it is from; None where another piece has it."""

    text: str
    token: DrawnToken | None


class Pieces:
    """Pieces that wait for a decision."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.text = ""
        """All of them together."""

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.text += piece.text

    def take(self, length: int) -> list[Piece]:
        """The first `length` characters; a token goes with its first one."""
        taken: list[Piece] = []
        self.text = self.text[length:]
        while length > 0:
            piece = self._pieces.popleft()
            taken.append(Piece(piece.text[:length], piece.token))
            if len(piece.text) > length:
                self._pieces.appendleft(Piece(piece.text[length:], None))
            length -= len(piece.text)
        return taken

    def drop(self, length: int) -> None:
        """Forget the first `length` characters and the tokens that are all within them."""
        self.text = self.text[length:]
        while length > 0:
            piece = self._pieces.popleft()
            if len(piece.text) > length:
                self._pieces.appendleft(Piece(piece.text[length:], piece.token))
            length -= len(piece.text)

    def clear(self) -> None:
        self._pieces.clear()
        self.text = ""


class StopStrings:
    """Ends a text before the first of some strings, wherever tokens were cut."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = Pieces()
        self.hit = False
        """A stop string came; whatever follows is no part of the text."""

    def feed(self, pieces: Sequence[Piece]) -> list[Piece]:
        """What is surely part of the text by now."""
        if not self._stops:
            return list(pieces)
        if self.hit:
            return []
        for piece in pieces:
            self._held.add(piece)
        text = self._held.text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.hit = True
            return self._held.take(min(found))
        return self._held.take(len(text) - self._undecided(text))

    def rest(self) -> list[Piece]:
        """What was held back, once nothing can follow."""
        return [] if self.hit else self._held.take(len(self._held.text))

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that may be the beginning of a stop string."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self._stops)), 0)
