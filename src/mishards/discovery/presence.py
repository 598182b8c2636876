"""Who of the recorded members lives, judged by this process' own clock alone (P16).

A member lives while its record changes: each heartbeat counts its `beat` up, each start draws an `incarnation`. One
reading adds at most `step_s` of silence, so that time without readings (the back end was down and nobody could beat, or
this process was paused) ends nobody's membership. A record that was never seen to change may be long dead: it is given
a short probation instead of the full time-out, so that a new observer is wrong for a moment only.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mishards.model import Member, NodeId


class _Record(msgspec.Struct):
    member: Member
    silent_s: float = 0.0
    proven: bool = False  # seen to change


class Presence:
    """The view of one observer. Not for concurrent use."""

    def __init__(self, timeout_s: float, probation_s: float, step_s: float) -> None:
        self._timeout_s = timeout_s
        self._probation_s = probation_s
        self._step_s = step_s
        self._records: dict[NodeId, _Record] = {}
        self._read_s: float | None = None

    def observe(self, recorded: Iterable[Member], now_s: float) -> tuple[Member, ...]:
        """The live members, sorted by id, after a reading at `now_s`. A record that is gone has left."""
        passed_s = 0.0 if self._read_s is None else min(now_s - self._read_s, self._step_s)
        self._read_s = now_s
        self._records = {member.id: self._update(member, passed_s) for member in recorded}
        live = (record.member for record in self._records.values() if record.silent_s <= self._patience_s(record))
        return tuple(sorted(live, key=lambda member: member.id))

    def silent_for(self, seconds: float) -> tuple[NodeId, ...]:
        """Those whose record has not changed for at least that long."""
        return tuple(node for node, record in self._records.items() if record.silent_s >= seconds)

    def _update(self, member: Member, passed_s: float) -> _Record:
        known = self._records.get(member.id)
        if known is None:
            return _Record(member)
        if (member.beat, member.incarnation) != (known.member.beat, known.member.incarnation):
            return _Record(member, proven=True)
        return _Record(member, known.silent_s + passed_s, known.proven)

    def _patience_s(self, record: _Record) -> float:
        return self._timeout_s if record.proven else self._probation_s
