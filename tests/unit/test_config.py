"""Settings: precedence, origins, and errors that name the setting and where it came from."""

from pathlib import Path

import pytest

from dicomnode.config import Settings, as_environment, read_settings
from dicomnode.errors import InvalidSetting


def test_command_line_over_environment_over_file_over_default(tmp_path: Path) -> None:
    (tmp_path / "dicomnode.toml").write_text('ae_title = "FILE"\nquiet_period_s = 7\nworkers = 3\n')
    environment = {"DICOMNODE_HOME": str(tmp_path), "DICOMNODE_AE_TITLE": "ENV", "DICOMNODE_WORKERS": "2"}
    settings, origins = read_settings({"ae_title": "CLI", "workers": None}, environment)
    assert (settings.ae_title, settings.workers, settings.quiet_period_s, settings.receivers) == ("CLI", 2, 7.0, 2)
    origin = {o.name: o.origin for o in origins}
    assert origin["ae_title"] == "command line"
    assert origin["workers"] == "environment"
    assert origin["quiet_period_s"] == "dicomnode.toml"
    assert origin["receivers"] == "default"


def test_every_setting_has_help_and_a_variable() -> None:
    _, origins = read_settings({}, {})
    assert all(o.help and o.variable == f"DICOMNODE_{o.name.upper()}" for o in origins)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://node:se:cr/et@db:5432/x", None),
        ("postgresql+psycopg://node:secret@db:5432/x", "postgresql+psycopg://node:***@db:5432/x"),
        ("postgresql+psycopg://node@db/x?password=secret&sslmode=require", None),
        ("postgresql+psycopg://node@db:5432/x", "postgresql+psycopg://node@db:5432/x"),
        ("sqlite:////srv/a:b/node.db", "sqlite:////srv/a:b/node.db"),
    ],
)
def test_settings_are_shown_without_the_password(url: str, shown: str | None) -> None:
    settings, origins = read_settings({}, {"DICOMNODE_DATABASE_URL": url})
    assert settings.database_url == url
    printed = next(o.shown for o in origins if o.name == "database_url")
    assert "secret" not in printed
    assert "cr/et" not in printed
    assert shown in {None, printed}


def test_as_environment_reads_back_as_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, allowed_calling_ae_titles=("CT 1", "MR"), check_called_ae_title=True)
    assert read_settings({}, as_environment(settings))[0] == settings


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"DICOMNODE_DICOM_PORT": "99999"}, "dicom_port"),
        ({"DICOMNODE_DICOM_PORT": "dicom"}, r"dicom_port \(variable DICOMNODE_DICOM_PORT\)"),
        ({"DICOMNODE_AE_TITLE": "A\\B"}, "ae_title"),
        ({"DICOMNODE_AE_TITLE": "SEVENTEEN LETTERS"}, "ae_title"),
        ({"DICOMNODE_PORT": "104"}, "DICOMNODE_PORT"),
        ({"DICOMNODE_CHECK_CALLED_AE_TITLE": "maybe"}, "check_called_ae_title"),
        ({"DICOMNODE_ENGINE": "tensorrt"}, "engine"),
        ({"DICOMNODE_QUIET_PERIOD_S": "-1"}, "quiet_period_s"),
        ({"DICOMNODE_QUIET_PERIOD_S": "inf"}, "quiet_period_s"),
        ({"DICOMNODE_INFERENCE_TIMEOUT_S": "nan"}, "inference_timeout_s"),
        ({"DICOMNODE_TRITON_THREADS": "-1"}, "triton_threads"),
        ({"DICOMNODE_MIN_FREE_BYTES": "-1"}, "min_free_bytes"),
        ({"DICOMNODE_MAX_PDU_BYTES": "4294967296"}, "max_pdu_bytes"),
        ({"DICOMNODE_HOME": ""}, "is empty"),
        ({"DICOMNODE_HOME": "~nobody-of-that-name/node"}, "no such user's home"),
    ],
)
def test_wrong_settings_are_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        read_settings({}, environment)


def test_a_file_that_is_no_toml_or_has_unknown_names_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dicomnode.toml"
    file.write_text("ae_title = ")
    with pytest.raises(InvalidSetting, match=r"dicomnode\.toml"):
        read_settings({"home": str(tmp_path)}, {})
    file.write_text('aetitle = "X"')
    with pytest.raises(InvalidSetting, match="unknown: aetitle"):
        read_settings({"home": str(tmp_path)}, {})


A_PORT = "must be a whole number, 0 to 65535"
A_TITLE = "must be 1 to 16 characters, no backslash"
TITLES = "must be AE titles by comma, each of 1 to 16 characters"
YES_OR_NO = "must be true or false (or 1 or 0, yes or no, on or off)"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--dicom-port", "dicom", f"{A_PORT}, not 'dicom'"),
        ("--dicom-port", "70000", f"{A_PORT}, not '70000'"),
        ("--workers", "1.5", "must be a whole number, 1 to 64, not '1.5'"),
        ("--quiet-period-s", "5 s", "must be a number of seconds, 0 or more, not '5 s'"),
        ("--check-called-ae-title", "maybe", f"{YES_OR_NO}, not 'maybe'"),
        ("--ae-title", "A\\B", f"{A_TITLE}, not 'A\\B'"),
        ("--log-level", "loud", "must be DEBUG, INFO, WARNING or ERROR, not 'loud'"),
    ],
)
def test_a_mistake_is_told_in_plain_words_wherever_it_is(tmp_path: Path, option: str, value: str, words: str) -> None:
    name = option[2:].replace("-", "_")
    variable, home = f"DICOMNODE_{name.upper()}", {"home": str(tmp_path)}
    with pytest.raises(InvalidSetting) as raised:
        read_settings({**home, name: value}, {})
    assert str(raised.value) == f"{name} (option {option}): {words}"
    with pytest.raises(InvalidSetting) as raised:
        read_settings(home, {variable: value})
    assert str(raised.value) == f"{name} (variable {variable}): {words}"
    (tmp_path / "dicomnode.toml").write_text(f"{name} = '{value}'\n")
    with pytest.raises(InvalidSetting) as raised:
        read_settings(home, {})
    assert str(raised.value) == f"{name} (in {tmp_path / 'dicomnode.toml'}): {words}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ae_title = true", f"ae_title (in FILE): {A_TITLE}, not 'true'"),
        ("allowed_calling_ae_titles = 5", f"allowed_calling_ae_titles (in FILE): {TITLES}, not '5'"),
        ("dicom_host = 5", "dicom_host (in FILE): must be text, not '5'"),
        ("workers = [1, 2]", "workers (in FILE): must be a whole number, 1 to 64, not '1,2'"),
        ("workers =\n", "FILE: is no TOML: Invalid value (at line 1, column 10); as in: dicom_port = 104"),
    ],
)
def test_a_mistake_in_the_file_names_it(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "dicomnode.toml"
    file.write_text(line)
    with pytest.raises(InvalidSetting) as raised:
        read_settings({"home": str(tmp_path)}, {})
    assert str(raised.value) == words.replace("FILE", str(file))


def test_a_mistyped_variable_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidSetting, match=r"DICOMNODE_DICOM_PRT: .*did you mean DICOMNODE_DICOM_PORT\?"):
        read_settings({}, {"DICOMNODE_DICOM_PRT": "1"})


def test_a_file_that_cannot_be_read_as_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "dicomnode.toml").write_bytes(b"ae_title = '\xff'")
    with pytest.raises(InvalidSetting, match="is no text in UTF-8"):
        read_settings({"home": str(tmp_path)}, {})


@pytest.mark.parametrize("line", ["receivers = 1.7", "workers = true", "ae_title = 5", 'check_called_ae_title = "x"'])
def test_a_file_gives_each_setting_its_own_type(tmp_path: Path, line: str) -> None:
    (tmp_path / "dicomnode.toml").write_text(line)
    with pytest.raises(InvalidSetting, match=r"dicomnode\.toml"):
        read_settings({"home": str(tmp_path)}, {})


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "dicomnode.toml").write_text("quiet_period_s = 3")
    assert read_settings({"home": str(tmp_path)}, {})[0].quiet_period_s == 3.0


def test_what_kubernetes_says_of_a_service_is_no_setting() -> None:
    environment = {
        "DICOMNODE_PORT": "tcp://10.0.0.1:11112",
        "DICOMNODE_PORT_11112_TCP": "tcp://10.0.0.1:11112",
        "DICOMNODE_PORT_11112_TCP_ADDR": "10.0.0.1",
        "DICOMNODE_SERVICE_HOST": "10.0.0.1",
        "DICOMNODE_SERVICE_PORT_DICOM": "11112",
    }
    assert read_settings({}, environment)[0] == read_settings({}, {})[0]
