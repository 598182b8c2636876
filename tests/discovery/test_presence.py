"""Who lives is judged by changes of the record and this process' clock."""

from msgspec.structs import replace

from mishards.discovery.presence import Presence
from mishards.model import Member, NodeId

A = Member(id=NodeId("a"), roles=("reader",), address="tcp://a:1", incarnation="1", beat=7)
B = replace(A, id=NodeId("b"))


def test_silent_member_leaves_after_the_timeout() -> None:
    """A member that beat once while observed stays for the whole time-out and not longer."""
    presence = Presence(timeout_s=30, probation_s=3, step_s=40)
    presence.observe([A], 0)
    beaten = replace(A, beat=8)

    assert presence.observe([beaten], 1) == (beaten,)
    assert presence.observe([beaten], 31) == (beaten,)
    assert presence.observe([beaten], 31.1) == ()


def test_beating_member_stays() -> None:
    """A member whose counter changes between two readings lives, however far apart they are."""
    presence = Presence(timeout_s=30, probation_s=3, step_s=40)

    assert all(presence.observe([replace(A, beat=i)], i * 100.0) for i in range(5))


def test_old_record_counts_for_a_moment_only() -> None:
    """A new observer believes a record that never changes for the probation, not for the whole time-out."""
    presence = Presence(timeout_s=30, probation_s=3, step_s=40)

    assert presence.observe([A, B], 0) == (A, B)
    beaten = replace(B, beat=8)
    assert presence.observe([A, beaten], 3) == (A, beaten)
    assert presence.observe([A, beaten], 4) == (beaten,)


def test_restart_brings_back_at_once() -> None:
    """A silent member that starts again, perhaps with the same counter, lives from then on."""
    presence = Presence(timeout_s=30, probation_s=3, step_s=40)
    presence.observe([A], 0)
    assert presence.observe([A], 10) == ()
    restarted = replace(A, incarnation="2")

    assert presence.observe([restarted], 11) == (restarted,)
    assert presence.observe([restarted], 40) == (restarted,)


def test_deleted_record_is_a_departure() -> None:
    """A member whose record is gone is gone at once."""
    presence = Presence(timeout_s=30, probation_s=3, step_s=40)
    presence.observe([A, B], 0)

    assert presence.observe([B], 1) == (B,)


def test_outage_ends_no_membership() -> None:
    """Time during which nothing was read counts as one step at most, for everybody."""
    presence = Presence(timeout_s=30, probation_s=3, step_s=2)
    presence.observe([A], 0)
    beaten = replace(A, beat=8)
    presence.observe([beaten], 1)

    assert presence.observe([beaten], 500) == (beaten,)
    assert all(presence.observe([beaten], 500 + i) for i in range(1, 29))
    assert presence.observe([beaten], 529) == ()


def test_silence_is_known_by_its_length() -> None:
    """Records that have not changed for long are named, so that they can be deleted."""
    presence = Presence(timeout_s=30, probation_s=3, step_s=40)
    presence.observe([A, B], 0)
    presence.observe([A, replace(B, beat=8)], 35)

    assert presence.silent_for(35) == ("a",)
    assert presence.silent_for(36) == ()
