"""Back ends are found by name through entry points."""

import pytest

from mishards import plugins
from mishards.errors import SetupError
from mishards.routing.ring import ring


def test_plugin_is_what_the_entry_point_declares() -> None:
    """A known name yields the declared object."""
    assert plugins.load("router", "ring") is ring


def test_unknown_name_lists_the_known_ones() -> None:
    """The message names the group, the name and every name that would do; it is a set-up and a look-up error."""
    with pytest.raises(plugins.UnknownPluginError) as error:
        plugins.load("router", "dice")

    assert str(error.value) == "unknown router 'dice', expected one of: capped, rendezvous, ring"
    assert isinstance(error.value, SetupError)
    assert isinstance(error.value, LookupError)


def test_names_are_sorted() -> None:
    """The names of a group are listed in order."""
    assert plugins.names("discovery") == ("metadata", "static")


@pytest.mark.parametrize(
    ("url", "name"),
    [("mysql+asyncmy://h/db", "mysql"), ("sqlite:////x", "sqlite"), ("S3://b", "s3"), ("metadata://", "metadata")],
)
def test_scheme_names_the_back_end(url: str, name: str) -> None:
    """The name of a URL's back end is its scheme without the driver."""
    assert plugins.scheme(url) == name
