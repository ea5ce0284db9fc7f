"""Progress of an explanation: a bar in a terminal, else a plain line now and then."""

import sys
import time
from typing import Any

from tqdm import tqdm

# Seconds between two plain lines; seconds of running before the time left is told.
_QUIET, _MEASURED = 15.0, 2.0


class Progress:
    """Counts maps, and says what is going on within one.

    The methods take it as a static argument, hashed by identity: one object serves all calls, or each would
    compile anew.
    """

    def __init__(self) -> None:
        # Without tqdm's own time left: it takes the first map's compilation for the pace of all maps.
        # disable=None: no bar where stderr is not a terminal.
        shape = "{n_fmt}/{total_fmt} maps |{bar:20}| {desc}"
        self.bar = tqdm(total=0, bar_format=shape, disable=None, leave=False, dynamic_ncols=True)
        self.seen: set[str] = set()
        self.started: tuple[float, float] | None = None
        self.share = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def expect(self, maps: int) -> None:
        """So many maps more (or fewer) are to come."""
        # tqdm's attribute, for which it has no method: the number of frames is known file by file only.
        self.bar.total += maps

    def begin(self, what: str, method: str, passes: int | None) -> None:
        """A map begins, or those that one call makes."""
        self.what, self.method, self.passes = what, method, passes
        self.began = self.told = time.monotonic()
        self.started, self.share = None, 0.0
        self.tick()

    def __call__(self, done: Any, total: Any) -> None:
        """A chunk is done, as a method tells from another thread."""
        self.share = int(done) / int(total)
        if self.started is None:
            self.started = time.monotonic(), self.share

    def text(self, now: float) -> str:
        """What is going on."""
        if self.started is None or self.passes is None:
            doing = "running" if self.method in self.seen else "compiling …"
            return f"{self.what}: {doing} {now - self.began:.0f} s"
        since, first = self.started
        done = f"{self.what}: {round(self.share * self.passes):,} of {self.passes:,} passes"
        # From the first chunk on: before it lies the compilation, which says nothing of the chunks.
        rate = (self.share - first) / max(now - since, 1e-9)
        return f"{done}, {(1 - self.share) / rate:.0f} s left" if now - since > _MEASURED and rate else done

    def tick(self) -> None:
        """Show where the work is; called often while it goes on."""
        now = time.monotonic()
        if not self.bar.disable:
            self.bar.set_description_str(self.text(now), refresh=True)
        # A log file gets a line now and then, not one per tick.
        elif now - self.told > _QUIET:
            self.told = now
            print(self.text(now), file=sys.stderr, flush=True)

    def end(self, maps: int) -> None:
        """So many maps, which one call makes, are done."""
        self.seen.add(self.method)
        self.bar.update(maps)
