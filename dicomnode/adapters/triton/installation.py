"""Where tritonserver is, and what it needs around it to run Python models in this environment."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dicomnode
from dicomnode.domain.inner import NATIVE, STAND_IN
from dicomnode.errors import EngineUnavailable

_STUB = "triton_python_backend_stub"
STAND_INS = ("onnxruntime", "openvino", "pytorch")  # hosts.shims has one for each
_IMAGE_FOLDER = Path("/opt/tritonserver")  # where NVIDIA's container has it
_PRIVATE_FOLDER = Path("~/.local/share/dicomnode/tritonserver")


@dataclass(frozen=True, slots=True)
class Installation:
    """A tritonserver: its program, its backends, and the stub that fits this Python."""

    program: Path
    backends: Path
    stub: Path | None
    """None: the one that lies with the Python backend."""
    libraries: tuple[Path, ...]


def find_server(environment: Mapping[str, str] | None = None) -> Installation | None:
    """The first of TRITON_SERVER_PATH, PATH, NVIDIA's container, the pytriton package, a private folder."""
    environment = os.environ if environment is None else environment
    if not sys.platform.startswith("linux"):
        return None
    if named := environment.get("TRITON_SERVER_PATH"):
        return _installed(Path(named))
    on_path = shutil.which("tritonserver", path=environment.get("PATH"))
    candidates = [Path(on_path).resolve()] if on_path else []
    found = (_installed(folder) for folder in (*candidates, _IMAGE_FOLDER))
    return next(filter(None, found), None) or _pytriton() or _installed(_PRIVATE_FOLDER.expanduser())


def _installed(path: Path) -> Installation | None:
    """From the program or from the folder that holds bin/tritonserver and backends/."""
    program = next((p for p in (path, path / "bin" / "tritonserver", path / "tritonserver") if p.is_file()), None)
    if program is None:
        return None
    root = program.parent.parent
    backends = root / "backends"
    if not (backends / "python").is_dir():
        return None
    return Installation(program, backends, _stub_for_this_python(root), (root / "lib",))


def _pytriton() -> Installation | None:
    """The server inside the nvidia-pytriton wheel; asked for without importing it."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None or platform.machine() != "x86_64":
        return None
    package = Path(spec.origin).parent
    root = package / "tritonserver"
    program, stub = root / "bin" / "tritonserver", _stub_for_this_python(root)
    if not program.is_file() or stub is None:
        return None
    return Installation(program, root / "backends", stub, (package.parent / "nvidia_pytriton.libs",))


def _stub_for_this_python(root: Path) -> Path | None:
    stub = root / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}" / _STUB
    return stub if stub.is_file() else None


def server_environment(installation: Installation, threads: int, plain: Callable[[Path], Path]) -> dict[str, str]:
    """Variables for the server and its stubs: libraries, this interpreter's own modules, threads.

    The stub embeds an isolated Python; PYTHONPATH is for our model.py, which puts it into sys.path. `plain` gives
    a name of a folder in ASCII: that Python crashes over others.
    """
    own = [
        Path(dicomnode.__file__).parent.parent,
        *(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")),
    ]
    libraries = [*installation.libraries, Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DICOMNODE_"))}
    return {
        **kept,
        "LD_LIBRARY_PATH": _joined(
            [*map(plain, libraries), *map(Path, filter(None, [os.environ.get("LD_LIBRARY_PATH")]))]
        ),
        "PYTHONPATH": _joined([plain(folder) for folder in own]),
        "OMP_NUM_THREADS": str(threads),
    }


def _joined(paths: list[Path]) -> str:
    return os.pathsep.join(dict.fromkeys(map(str, paths)))


def copy_backends(installation: Installation, folder: Path) -> dict[str, str]:
    """All backends of the server, and stand-ins for some that it lacks; their names, and which they are.

    Of the Python backend it is a copy with the right stub: links would be followed back to the wrong one.
    """
    for old in folder.iterdir():
        if old.is_symlink():
            old.unlink()
        else:
            shutil.rmtree(old)
    target = folder / "python"
    shutil.copytree(installation.backends / "python", target, ignore=shutil.ignore_patterns("__pycache__"))
    if installation.stub is not None:
        shutil.copy2(installation.stub, target / _STUB)
    (target / _STUB).chmod(0o755)
    own = [path for path in installation.backends.iterdir() if path.name != "python" and _is_backend(path)]
    for path in own:
        (folder / path.name).symlink_to(path.resolve())
    names = {path.name for path in own}
    for name in set(STAND_INS) - names:
        _write_stand_in(folder / name)
    return dict.fromkeys(STAND_INS, STAND_IN) | dict.fromkeys(sorted(names), NATIVE)


def _is_backend(folder: Path) -> bool:
    """A library, or a program for the Python backend: what Triton looks for, in this order."""
    return (folder / f"libtriton_{folder.name}.so").is_file() or (folder / "model.py").is_file()


def _write_stand_in(folder: Path) -> None:
    """A Python-based backend: Triton runs its model.py for every model that names it."""
    folder.mkdir()
    (folder / "model.py").write_text(_STAND_IN_CODE.replace("NAME", repr(folder.name)), encoding="utf-8")


_STAND_IN_CODE = '''\
"""Written by dicomnode: hands over to dicomnode.adapters.triton.hosts.shims."""

import os
import sys

# the stub's interpreter is isolated and reads no PYTHONPATH by itself
sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

import triton_python_backend_utils as backend

from dicomnode.adapters.triton.hosts.shims import Shim


class TritonPythonModel:
    def initialize(self, args):
        self._shim = Shim(backend, NAME, args)

    def execute(self, requests):
        return self._shim.execute(requests)
'''


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether an NVIDIA GPU is there, seen without loading its libraries: by its device, or WSL's."""
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()


def probe_stub(folder: Path, environment: Mapping[str, str]) -> None:
    """Runs the stub as Triton does, but without arguments, which it refuses; 126 and 127 say that it cannot start.

    Without this the server would wait for it for ever when it loads a model. Triton's way is a line for bash in
    which nothing is quoted: `folder` must be a plain name.
    """
    command = ["bash", "-c", f"exec {folder}/python/{_STUB}"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(f"Triton's Python stub does not start: {error}") from error
    if done.returncode in {126, 127}:
        needed = "; a Python with a shared libpython is needed" if "libpython" in done.stderr else ""
        raise EngineUnavailable(f"Triton's Python stub does not start: {done.stderr.strip()}{needed}")
