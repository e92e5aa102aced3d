"""Whole outputs kept for an episode, so that the model can read on in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentrft.tools.output.fit import Body, Count, Window, fit, page_end, with_short_header
from agentrft.tools.output.marker import call_for_more, full_mark


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    data: bytes
    """UTF-8: the memory it takes is what is counted."""
    body: Body
    """Without its text."""
    page_rows: int | None


class KeptOutputs:
    """Whole outputs of one episode: the newest of them, within bounds of number and memory.

    What is kept depends on the outputs and their calls' numbers only, not on the order in which parallel calls end.
    Nothing here waits or locks: use it from one thread.
    """

    def __init__(self, *, max_outputs: int = 32, max_bytes: int = 8_000_000) -> None:
        self._max_outputs = max_outputs
        self._max_bytes = max_bytes
        self._by_number: dict[int, _Kept] = {}
        self._forgotten = -1
        """Outputs of this call and earlier ones are not kept any more."""

    @property
    def bytes_held(self) -> int:
        """Of all texts kept, UTF-8."""
        return sum(len(kept.data) for kept in self._by_number.values())

    def keep(self, call_number: int, body: Body, page_rows: int | None = None) -> None:
        """Keep the output of the episode's call of that number; older ones go when it gets too much."""
        if call_number <= self._forgotten:
            return
        frame = replace(body, text="")
        self._by_number[call_number] = _Kept(data=body.text.encode(), body=frame, page_rows=page_rows)
        while len(self._by_number) > self._max_outputs or self.bytes_held > self._max_bytes:
            self._forgotten = min(self._by_number)
            del self._by_number[self._forgotten]

    def take_over(self, other: KeptOutputs) -> None:
        """Keep what `other` keeps now, instead of everything so far."""
        self._by_number = dict(other._by_number)
        self._forgotten = other._forgotten

    def read(self, output_id: str, start: int, *, limit: int, count: Count) -> str:
        """The page that begins at `start` (characters from 1), at most `limit` tokens, with where it is and what next.

        Raises ValueError, in words for the model, for an output that is not kept and a start beyond its end.
        """
        known = {id_of(number): kept for number, kept in sorted(self._by_number.items())}
        kept = known.get(output_id)
        if kept is None:
            raise ValueError(f"no output {output_id[:24]!r} is kept; kept: {', '.join(known) or 'none'}")
        text = kept.data.decode()
        if start > len(text):
            raise ValueError(f"{output_id} ends at {len(text)}, start {start} is beyond; start 1 is its beginning")
        body = with_short_header(replace(kept.body, text=text), limit, count)

        def how(window: Window) -> str:
            return "The end." if window.head_end == len(text) else call_for_more(output_id, window.head_end)

        begin = max(start - 1, body.header_chars)
        window = (begin, page_end(body, begin, kept.page_rows))
        page = fit(body, window, limit=limit, count=count, keep="head", mark=full_mark(body, how), snap=True)
        if page.window.head_end <= begin < len(text):
            raise ValueError(f"{limit} tokens an output are too few to read on; make the call narrower instead")
        return page.text


def id_of(call_number: int) -> str:
    """What the model calls the output of the episode's call of that number."""
    return f"out_{call_number}"
