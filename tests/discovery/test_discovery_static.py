"""Discovery by a list in a URL."""

from typing import cast

import pytest
from members_only import MembersOnly

from mishards import plugins
from mishards.clock import FakeClock
from mishards.discovery.context import Context
from mishards.discovery.static import parse_members
from mishards.errors import SetupError
from mishards.model import ROLES
from mishards.ports import Discovery, MetadataStore
from mishards.testing.discovery_suite import DiscoverySuite


class TestStatic(DiscoverySuite):
    def connect(self) -> Discovery:
        context = Context(cast(MetadataStore, MembersOnly()), FakeClock())
        return cast(Discovery, plugins.load("discovery", "static")("static://", context))


def test_list_names_members() -> None:
    """Each entry is a member: id, wire address and roles, with host:port and all roles where it does not say."""
    members = parse_members("static://r1@10.0.0.1:7000?roles=reader,10.0.0.2:7001,w@db:7?roles=writer+builder")

    assert [(m.id, m.address, m.roles) for m in members] == [
        ("r1", "tcp://10.0.0.1:7000", ("reader",)),
        ("10.0.0.2:7001", "tcp://10.0.0.2:7001", ROLES),
        ("w", "tcp://db:7", ("writer", "builder")),
    ]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("static://host", "'host' is not [id@]host:port"),
        ("static://host:0", "'host:0' is not [id@]host:port"),
        ("static://h:1?roles=king", "expected ?roles= with some of proxy+reader+writer+builder"),
        ("static://h:1?zone=a", "expected ?roles="),
        ("static://a@h:1,a@h:2", "lists node 'a' twice"),
    ],
)
def test_wrong_entry_is_refused(url: str, says: str) -> None:
    """An entry that is no place, has unknown roles or is listed twice is a set-up error that quotes it."""
    with pytest.raises(SetupError) as error:
        parse_members(url)

    assert says in str(error.value)
