"""Settings: what overrides what, and how wrong ones are refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mishards import config
from mishards.config import GIB, MIB, Loaded, Settings
from mishards.errors import SetupError


def load(tmp_path: Path, text: str = "", environment: Mapping[str, str] | None = None, **flags: Any) -> Loaded:
    file = tmp_path / "mishards.toml"
    file.write_text(text)
    return config.load(file, environment or {}, flags)


def refusal(tmp_path: Path, text: str = "", environment: Mapping[str, str] | None = None, **flags: Any) -> str:
    with pytest.raises(SetupError) as error:
        load(tmp_path, text, environment, **flags)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_defaults_stand_where_nothing_is_said() -> None:
    """Without file, environment and flags every setting is the default and says so."""
    loaded = config.load(None, {}, {})

    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.origins.keys() == config.values(Settings()).keys()


def test_flags_override_environment_overrides_file(tmp_path: Path) -> None:
    """Defaults < file < environment < flags, and each value says where it came from."""
    loaded = load(
        tmp_path,
        "port = 1\nhttp_port = 1\nwire_port = 1\n[reader]\nthreads = 1\n",
        {"MISHARDS_HTTP_PORT": "2", "MISHARDS_WIRE_PORT": "2", "MISHARDS_READER_THREADS": "2"},
        wire_port=3,
        host=None,
    )

    settings, origins = loaded.settings, loaded.origins
    assert (settings.port, settings.http_port, settings.wire_port, settings.reader.threads) == (1, 2, 3, 2)
    assert settings.host == "127.0.0.1"
    assert origins["host"] == "default"
    assert origins["port"] == "file mishards.toml"
    assert origins["http_port"] == "environment MISHARDS_HTTP_PORT"
    assert origins["reader.threads"] == "environment MISHARDS_READER_THREADS"
    assert origins["wire_port"] == "flag --wire-port"


def test_environment_names_the_file(tmp_path: Path) -> None:
    """MISHARDS_CONFIG is the settings file when no flag names one."""
    file = tmp_path / "other.toml"
    file.write_text("port = 7")

    loaded = config.load(None, {"MISHARDS_CONFIG": str(file), "MISHARDS_TEST_X": "1", "MISHARDS_BENCH_Y": "2"}, {})
    assert loaded.settings.port == 7
    assert loaded.origins["port"] == "file other.toml"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("reader.memory_bytes_max", "2GiB", 2 * GIB),
        ("reader.memory_bytes_max", "1.5 MiB", 3 * MIB // 2),
        ("reader.memory_bytes_max", "10mb", 10_000_000),
        ("writer.seal_bytes", "4096", 4096),
        ("writer.inline_bytes_max", "0", 0),
        ("poll_s", "250ms", 0.25),
        ("poll_s", "5s", 5.0),
        ("member_timeout_s", "2m", 120.0),
        ("drain_s", "0", 0.0),
        ("reader.threads", "0", 0),
        ("builder.dead_share", "0.5", 0.5),
        ("roles", "proxy,reader", "proxy,reader"),
        ("node_id", "reader-1", "reader-1"),
    ],
)
def test_text_is_read_by_the_settings_type(tmp_path: Path, key: str, text: str, value: object) -> None:
    """Sizes and times may carry units; numbers are numbers; texts stay texts."""
    loaded = load(tmp_path, environment={config.variable(key): text})

    assert config.values(loaded.settings)[key] == value


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("port", "70000", "a port, 0 to 65535"),
        ("port", "-1", "a port, 0 to 65535"),
        ("port", "5s", "a port, 0 to 65535"),
        ("roles", "reader,king", "'all' or a comma-separated list of proxy, reader, writer, builder"),
        ("roles", "", "'all' or a comma-separated list"),
        ("metadata", "somewhere", "a URL such as scheme://place"),
        ("storage", "/mnt/data", "a URL such as scheme://place"),
        ("data", "", "a text that is not empty"),
        ("log_level", "loud", "debug, info, warning or error"),
        ("node_id", "a b", "at most 64 letters, digits, dots, dashes and underscores"),
        ("reader.threads", "many", "a whole number; 0 means one per core"),
        ("reader.threads", "1.5", "a whole number"),
        ("reader.memory_bytes_max", "0", "a size in bytes, at least 1, such as 4096 or 512MiB"),
        ("reader.memory_bytes_max", "2 elephants", "a size in bytes"),
        ("poll_s", "0", "a time in seconds above 0, such as 2.5 or 500ms"),
        ("poll_s", "nan", "a time in seconds"),
        ("drain_s", "inf", "a time in seconds"),
        ("writer.seal_files", "0", "a whole number, at least 1"),
        ("builder.merge_files", "1", "a whole number, at least 2"),
        ("builder.dead_share", "1.1", "a share, 0 to 1"),
    ],
)
def test_wrong_value_is_refused(tmp_path: Path, key: str, text: str, expected: str) -> None:
    """The message names the setting, its value, where it came from and what is expected."""
    name = config.variable(key)
    message = refusal(tmp_path, environment={name: text})

    assert message.startswith(f"{key} = {text!r} (environment {name}): expected {expected}")


def test_wrong_types_in_the_file_are_refused(tmp_path: Path) -> None:
    """A value of another TOML type than the setting's is refused, never converted."""
    assert refusal(tmp_path, "port = true") == "port = True (file mishards.toml): expected a port, 0 to 65535"
    assert "node_id = 7 (file mishards.toml)" in refusal(tmp_path, "node_id = 7")
    assert "poll_s = inf" in refusal(tmp_path, "poll_s = inf")
    assert "expected a text" in refusal(tmp_path, "host = ['a']")


def test_unknown_names_are_refused_with_the_nearest(tmp_path: Path) -> None:
    """A name that no setting has is an error in the file, the environment and the flags; the nearest is named."""
    assert (
        refusal(tmp_path, "[reader]\nthread = 1")
        == "unknown setting 'reader.thread' (file mishards.toml); the nearest is reader.threads"
    )
    assert refusal(tmp_path, "ports = 1").endswith("the nearest is port")
    assert refusal(tmp_path, "reader = 1") == "'reader' is a section, not a setting (file mishards.toml)"
    assert (
        refusal(tmp_path, environment={"MISHARDS_PROT": "1"})
        == "unknown environment variable MISHARDS_PROT; the nearest is MISHARDS_PORT"
    )


def test_a_name_like_no_other_gets_no_guess(tmp_path: Path) -> None:
    """Where no known name is near, the command that lists them is named."""
    assert refusal(tmp_path, "xyz = 1").endswith("; `mishards config show` lists all")
    assert refusal(tmp_path, environment={"MISHARDS_XYZ": "1"}).endswith("; `mishards config show` lists all")


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    """A settings file that is missing or no TOML is an error that names it."""
    with pytest.raises(SetupError, match=r"cannot read the configuration file .*none\.toml: No such file"):
        config.load(tmp_path / "none.toml", {}, {})
    assert "is not valid TOML" in refusal(tmp_path, "port = ")


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """Time-outs shorter than two heartbeats and seal sizes above the limit of fresh rows cannot work."""
    assert "less than two heartbeats" in refusal(tmp_path, "beat_s = 20")
    assert "writer.seal_bytes = 1073741824 is more than" in refusal(tmp_path, "[writer]\nseal_bytes = '1GiB'")


def test_places_follow_from_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata and storage lie in the data directory, as absolute places, unless a URL says otherwise."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(data="./d")

    assert config.data_dir(settings) == tmp_path / "d"
    assert config.metadata_url(settings) == f"sqlite:///{tmp_path}/d/metadata.db"
    assert config.storage_url(settings) == f"file://{tmp_path}/d/storage"
    assert config.discovery_url(settings) == "metadata://"
    assert config.metadata_url(Settings(metadata="mysql://h/db")) == "mysql://h/db"


def test_roles_are_listed_once_in_order() -> None:
    """`all` is every role; a list may repeat and mix them."""
    assert config.roles(Settings()) == ("proxy", "reader", "writer", "builder")
    assert config.roles(Settings(roles="writer,proxy,writer")) == ("proxy", "writer")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://root:s3/cr@t@db:3306/x", "mysql://root:***@db:3306/x"),
        ("s3://bucket?access_key_id=A&region=eu&secret=B", "s3://bucket?access_key_id=***&region=eu&secret=***"),
        ("sqlite:////data/metadata.db", "sqlite:////data/metadata.db"),
        ("postgresql://user@db/x", "postgresql://user@db/x"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    """What is printed of a URL has neither its password nor its keys."""
    assert config.masked(text) == shown


def test_every_setting_says_what_it_expects() -> None:
    """Every setting's type carries a description, and its default passes its own check."""
    for key, kind in config.types().items():
        assert kind.__metadata__[0].description, key
    config.load(None, {}, config.values(Settings()))
