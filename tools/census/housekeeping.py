"""What else goes on in a cluster meanwhile: flushes, compactions, and collections that come, are used and go."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Any

from tools.census.ledger import Ledger, rows_of
from tools.census.workload import Shared, make_collection

OTHERS_MAX = 2  # collections beside those of the census
OTHER_ROWS = 50


class Housekeeping(threading.Thread):
    """One thing after the other, each of which may fail under faults and must change no answer."""

    def __init__(self, shared: Shared, ledgers: list[Ledger], pause_s: float = 2.0) -> None:
        super().__init__(name="housekeeping", daemon=True)
        self._shared = shared
        self._names = [ledger.name for ledger in ledgers]
        self._random = random.Random(f"{shared.seed}/{self.name}")
        self._client = shared.connect()
        self._others: list[str] = []
        self._numbers = itertools.count(1)
        self._pause_s = pause_s

    def run(self) -> None:
        actions = (self._flush, self._compact, self._come_or_go, self._reload)
        while not self._shared.stop.wait(self._random.uniform(0.2, 2 * self._pause_s)):
            self._random.choice(actions)()

    def _flush(self) -> None:
        name = self._random.choice(self._names)
        self._call("flush", name, lambda: self._client.flush(name))

    def _compact(self) -> None:
        name = self._random.choice(self._names)
        self._call("compact", name, lambda: self._client.compact(name))

    def _come_or_go(self) -> None:
        client = self._client
        if len(self._others) >= OTHERS_MAX:
            name = self._others.pop(0)
            self._call("drop", name, lambda: client.drop_collection(name))
            return
        ledger = Ledger(f"other{next(self._numbers)}", shards=1, dim=8, keys=OTHER_ROWS, steady_share=1.0)
        rows, _ = rows_of(0, ledger.keys, ledger.dim, self._shared.seed)
        if self._call("create", ledger.name, lambda: make_collection(client, ledger, {"index_type": "FLAT"}, 1)):
            self._others.append(ledger.name)
            self._call("insert other", ledger.name, lambda: client.insert(ledger.name, rows))

    def _reload(self) -> None:
        if self._others:
            name = self._random.choice(self._others)
            self._call("release", name, lambda: self._client.release_collection(name))
            self._call("load", name, lambda: self._client.load_collection(name))

    def _call(self, what: str, name: str, action: Any) -> bool:
        """Whether it succeeded."""
        done = self._shared.history.call(what, name, "housekeeping", lambda: (action(),))
        return done is not None
