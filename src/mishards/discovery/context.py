"""What a discovery back end is given besides its URL."""

from __future__ import annotations

from dataclasses import dataclass

from mishards.clock import Clock
from mishards.ports import MetadataStore


@dataclass(frozen=True, slots=True)
class Context:
    """`store` is opened and closed by its owner; the seconds are the settings of the same names."""

    store: MetadataStore
    clock: Clock
    beat_s: float = 1.0
    poll_s: float = 1.0
    member_timeout_s: float = 30.0
