"""The files for NVIDIA's container fit the node's settings and commands; nothing here runs a container."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomnode.config import read_settings
from tests.command_tree import PROGRAM, children

FOLDER = Path(__file__).parents[2] / "deploy" / "triton"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def environment_of_the_image() -> dict[str, str]:
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if line.startswith("ENV ") and "DICOMNODE_" in line]
    return dict(pair.split("=", 1) for pair in line.removeprefix("ENV ").split())


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_runs_a_role_with_settings_that_there_are(name: str) -> None:
    service = SERVICES[name]
    settings, _ = read_settings({}, service["environment"])
    assert settings.engine == "triton"
    program, *command = service["command"]
    assert program == "dicomnode"
    found = PROGRAM
    for word in command:
        found = children(found)[word]


def test_what_meets_in_one_place_is_mounted_there_by_the_same_user() -> None:
    for key in ("image", "user", "volumes", "environment"):
        assert len({repr(service[key]) for service in SERVICES.values()}) == 1
    mounts = dict(volume.split(":") for volume in SERVICES["triton"]["volumes"])
    environment = SERVICES["triton"]["environment"]
    assert mounts == {"home": environment["DICOMNODE_HOME"], "run": environment["TMPDIR"]}
    assert set(COMPOSE["volumes"]) == set(mounts)
    image = environment_of_the_image()
    assert {key: image[key] for key in ("DICOMNODE_HOME", "TMPDIR")} == {
        key: environment[key] for key in ("DICOMNODE_HOME", "TMPDIR")
    }
    assert f"USER {SERVICES['triton']['user']}" in DOCKERFILE
    owner = SERVICES["triton"]["user"].split(":")
    assert f"-o {owner[0]} -g {owner[1]} -m 700 {' '.join(mounts.values())}" in DOCKERFILE


def test_who_calls_shares_memory_and_process_numbers_with_triton() -> None:
    assert SERVICES["triton"]["ipc"] == "shareable"
    assert (SERVICES["worker"]["ipc"], SERVICES["worker"]["pid"]) == ("service:triton", "service:triton")
    assert SERVICES["triton"]["shm_size"].endswith("gb")
    for name in ("triton", "worker"):
        (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in SERVICES["receiver"]


def test_the_port_is_the_settings() -> None:
    port = SERVICES["receiver"]["environment"]["DICOMNODE_DICOM_PORT"]
    assert SERVICES["receiver"]["ports"] == [f"{port}:{port}"]


def test_what_is_installed_is_what_make_installs() -> None:
    (torch,) = set(re.findall(r"torch==[\d.]+", (FOLDER.parents[1] / "Makefile").read_text()))
    assert f"pip install {torch} " in DOCKERFILE
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    extras = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (cuda,) = extras["gpu"]
    assert f"'{cuda}'" in DOCKERFILE


def test_one_release_of_the_container_is_named() -> None:
    readme = (FOLDER / "README.md").read_text()
    (image,) = re.findall(r"^FROM (\S+):\$\{TRITON\}$", DOCKERFILE, flags=re.M)
    (tag,) = re.findall(r"^ARG TRITON=(\S+)$", DOCKERFILE, flags=re.M)
    assert f"{image}:{tag}" in readme
    named = re.findall(r"TRITON=(\S+?)-py3", readme)
    assert named
    for release in (tag.removesuffix("-py3"), *named):
        year, month = map(int, release.split("."))
        assert (year, month) >= (24, 12)  # Python 3.12, as requires-python wants it
    for copied in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.M):
        for name in copied.split():
            assert (FOLDER.parents[1] / name).exists()
