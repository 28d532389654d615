"""One bar over all work, with the time left and the phase inside.

In a terminal and in a notebook it is a tqdm bar; in a log file it is a plain line every
`LINE_EVERY` seconds. Work is weighted by its expected cost, so that the estimate of the time
left does not jump between long and short cells.
"""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_EVERY = 15.0  # seconds
BAR = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}, left {remaining}{postfix}"


class Progress:
    """A bar over parts of known cost. `part` sets the share done of a part, 0 to 1."""

    def __init__(self, costs: dict[str, float], unit: str):
        self.unit, self.costs, self.shares = unit, {}, {}
        # sums are kept, not taken: of twenty thousand parts a sum takes longer than what it tells
        self.all = self.done = 0.0
        self.ended = 0
        for name, cost in costs.items():
            self.add(name, cost)
        self.started, self.spoken = time.monotonic(), 0.0
        self.plain = not (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self.bar = tqdm(total=1.0, bar_format=BAR, file=sys.stderr, disable=self.plain, leave=True)

    def add(self, name: str, cost: float) -> None:
        """One more part to do, or one that is to be done anew."""
        if name in self.costs:
            self._set(name, 0.0)
        self.all += cost - self.costs.get(name, 0.0)
        self.costs[name], self.shares[name] = cost, 0.0

    def part(self, name: str, share: float, phase: str = "") -> None:
        self._set(name, share)
        if not self.plain:
            self.bar.set_description_str(self._head(), refresh=False)
            self.bar.set_postfix_str(phase, refresh=False)
            self.bar.n = self._done()
            self.bar.update(0)
        elif time.monotonic() - self.spoken >= LINE_EVERY:
            self._line(phase)

    def _set(self, name: str, share: float) -> None:
        before = self.shares.get(name, 0.0)
        self.done += self.costs[name] * (share - before)
        self.ended += (share >= 1) - (before >= 1)
        self.shares[name] = share

    def _head(self) -> str:
        return f"{self.ended} of {len(self.shares)} {self.unit}"

    def _done(self) -> float:
        return min(1.0, self.done / (self.all or 1.0))

    def _line(self, phase: str) -> None:
        self.spoken, done, elapsed = time.monotonic(), self._done(), time.monotonic() - self.started
        left = (
            f"{elapsed * (1 - done) / done:.0f} s left"
            if done > 0.02
            else "time left not known yet"
        )
        print(
            f"{self._head()}, {done:.0%}, {elapsed:.0f} s, {left}: {phase}",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Leave the last word on how far it came."""
        if self.plain:
            self._line("done" if self.ended == len(self.shares) else "stopped")
        self.bar.refresh()
        self.bar.close()
