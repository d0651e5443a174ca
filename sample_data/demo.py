"""The main job, from nothing: a node, a study sent to it, and what came back (`make demo`).

Everything lives in `.demo/` and is used again by the next run, so that only the first one sets up. What the
PACS received goes to `demo-output/`, with a picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pynetdicom import AE
from pynetdicom.presentation import build_context
from rich.console import Console
from rich.table import Table

from dicomnode import __version__
from dicomnode.adapters.model_store import package_digest
from dicomnode.config import read_settings
from dicomnode.node.status import roles_of
from dicomnode.node.supervisor import read_ready

HERE = Path(__file__).parent
MODEL = HERE / "models" / "torso-ct"
DEMO = Path(".demo").absolute()
OUTPUT = Path("demo-output").absolute()
PROTOCOL = "chest-abdomen"
PACS_AE_TITLE = "DEMO-PACS"
READY_TIMEOUT_S = 240.0
RESULT_TIMEOUT_S = 300.0

console = Console()


class DemoFailed(Exception):
    """Says what did not happen and where to look."""


def main() -> None:
    started = time.monotonic()
    try:
        run()
    except DemoFailed as error:
        console.print(f"[bold red]The demo failed:[/bold red] {error}")
        raise SystemExit(1) from None
    console.print(f"[dim]{time.monotonic() - started:.0f} s in all; the node has been stopped.[/dim]")


def run() -> None:
    start_over_if_outdated()
    received = DEMO / "pacs"
    shutil.rmtree(received, ignore_errors=True)
    pacs_port = free_port()
    with program(
        "pacs", "-m", "sample_data.pacs", str(received), "--port", str(pacs_port), "--ae-title", PACS_AE_TITLE
    ):
        set_up(pacs_port)
        with program("node", "-m", "dicomnode", "up"):
            study_uid, files = sample_study()
            port = wait_for_node()
            sent_at = send(files, port)
            study = wait_for_results(study_uid)
            arrived_at = wait_for_objects(received, study_uid)
            report(study, sent_at, arrived_at)
    show(files, received, study_uid)


# ------------------------------------------------------------------------------------------------ the node


def start_over_if_outdated() -> None:
    """A home of an earlier version of the project may hold another model under the same version."""
    stamp, now = DEMO / "made-with", f"{__version__} {package_digest(MODEL)}"
    if not stamp.exists() or stamp.read_text() != now:
        shutil.rmtree(DEMO, ignore_errors=True)
        DEMO.mkdir()
        stamp.write_text(now)


def environment() -> dict[str, str]:
    """The demo's node: its own home and any free port."""
    settings = {"HOME": str(DEMO / "home"), "DICOM_PORT": "0", "DICOM_HOST": "127.0.0.1"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DICOMNODE_")}
    return {**clean, **{f"DICOMNODE_{name}": value for name, value in settings.items()}}


def dicomnode(*arguments: str) -> str:
    """Runs a command of the node's, as an administrator would, and returns what it printed."""
    console.print(f"[dim]$ dicomnode {' '.join(arguments)}[/dim]", highlight=False, soft_wrap=True)
    return _run("-m", "dicomnode", *arguments)


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DemoFailed(f"{' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def set_up(pacs_port: int) -> None:
    """A model, a rule that says what it runs on, and where results go."""
    dicomnode("models", "add", str(MODEL))
    dicomnode("rules", "add", str(HERE / "rules" / "torso-ct.yaml"))
    # the demo's PACS has another port each time
    with contextlib.suppress(DemoFailed):
        _run("-m", "dicomnode", "destinations", "remove", "pacs")
    dicomnode("destinations", "add", "pacs", "--dimse", f"{PACS_AE_TITLE}@127.0.0.1:{pacs_port}")


@contextlib.contextmanager
def program(name: str, *arguments: str) -> Iterator[None]:
    """A program in the background, its output in `.demo/<name>.log`."""
    log_file = DEMO / f"{name}.log"
    with log_file.open("w") as log:
        process = subprocess.Popen([sys.executable, *arguments], env=environment(), stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_node() -> int:
    """The port the node listens on, once all its processes do their work."""
    settings, _ = read_settings({}, environment())
    names = [role.name for role in roles_of(settings)]
    end = time.monotonic() + READY_TIMEOUT_S
    with console.status("waiting for the node to be ready"):
        while time.monotonic() < end:
            facts = [read_ready(settings.run_folder, name) for name in names]
            if all(facts):
                return next(int(str(f["dicom_port"])) for f in facts if f and "dicom_port" in f)
            time.sleep(0.1)
    raise DemoFailed(f"the node was not ready after {READY_TIMEOUT_S:.0f} s; see {DEMO / 'node.log'}")


# ----------------------------------------------------------------------------------------------- the study


def sample_study() -> tuple[str, list[Path]]:
    """Study UID and files of a new synthetic study: another patient each time the demo runs."""
    seed = len(list((DEMO / "studies").glob("*"))) + 1
    folder = DEMO / "studies" / str(seed)
    with console.status("generating the sample study"):
        _run("-m", "sample_data.phantom", str(folder), "--protocol", PROTOCOL, "--seed", str(seed))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID), files


def send(files: list[Path], port: int) -> float:
    """C-STOREs the study; the monotonic time of the last answer."""
    ae = AE("MODALITY")
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    kinds = {(h.SOPClassUID, h.file_meta.TransferSyntaxUID) for h in headers}
    association = ae.associate(
        "127.0.0.1", port, contexts=[build_context(*kind) for kind in sorted(kinds)], ae_title="DICOMNODE"
    )
    if not association.is_established:
        raise DemoFailed(f"the node did not accept an association on port {port}")
    begun = time.monotonic()
    for file in files:
        status = association.send_c_store(file)
        if getattr(status, "Status", None) != 0:
            raise DemoFailed(f"{file.name} was answered {getattr(status, 'Status', 'nothing')}")
    done = time.monotonic()
    association.release()
    console.print(f"sent {len(files)} images to DICOMNODE in {done - begun:.1f} s")
    return done


def wait_for_results(study_uid: str) -> dict:
    """The study's job, once it is over."""
    end = time.monotonic() + RESULT_TIMEOUT_S
    with console.status("waiting for the results"):
        while time.monotonic() < end:
            jobs = json.loads(_run("-m", "dicomnode", "jobs", "list", "--json"))
            ours = [job for job in jobs if job["study_instance_uid"] == study_uid]
            if ours and ours[0]["state"] not in {"queued", "running"}:
                break
            time.sleep(0.2)
    if not ours or ours[0]["state"] != "succeeded":
        raise DemoFailed(_run("-m", "dicomnode", "studies", "why", study_uid))
    return json.loads(_run("-m", "dicomnode", "jobs", "show", ours[0]["job_id"], "--json"))


def wait_for_objects(received: Path, study_uid: str) -> float:
    """The monotonic time at which SEG and SR lay in the PACS."""
    end = time.monotonic() + RESULT_TIMEOUT_S
    while time.monotonic() < end:
        if len(files := results_in(received, study_uid)) >= 2:
            newest = max(file.stat().st_mtime for file in files)
            return time.monotonic() - (time.time() - newest)
        time.sleep(0.05)
    raise DemoFailed(_run("-m", "dicomnode", "studies", "why", study_uid))


def results_in(received: Path, study_uid: str) -> list[Path]:
    return sorted(f for f in received.rglob("*.dcm") if _header(f).get("StudyInstanceUID") == study_uid)


def _header(file: Path) -> pydicom.Dataset:
    return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "Modality"])


# ------------------------------------------------------------------------------------------------ the report


def report(job: dict, sent_at: float, arrived_at: float) -> None:
    table = Table(title="What happened", title_justify="left", title_style="bold")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in job["timings_s"].items():
        table.add_row(stage.replace("_", " "), f"{seconds:.2f}")
    table.add_section()
    table.add_row("last image → results in the PACS", f"{arrived_at - sent_at:.2f}")
    console.print(table)
    console.print(f"[dim]{completed_by(job)}[/dim]", highlight=False)
    measured = Table(title=f"Measured by {job['model']}", title_justify="left", title_style="bold")
    for column in ("segment", "volume", "mean"):
        measured.add_column(column, justify="left" if column == "segment" else "right")
    for row in job["details"].get("measurements", []):
        measured.add_row(row["segment"], f"{row['volume_ml']:.0f} mL", f"{row['mean']:.0f} {row['unit']}")
    console.print(measured)


def completed_by(job: dict) -> str:
    """In the words of the study's story: what the node went by, instead of waiting for images that may still come."""
    story = json.loads(_run("-m", "dicomnode", "studies", "why", job["series_instance_uid"], "--json"))["story"]
    told = [event["message"] for event in story if event["kind"] == "series.complete"]
    return str(told[-1]) if told else ""


def show(files: list[Path], received: Path, study_uid: str) -> None:
    """Copies what arrived to demo-output/ and draws the overlay from it."""
    from sample_data.overlay import draw, read_slices

    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    results = {_header(file).Modality: file for file in results_in(received, study_uid)}
    for modality, file in results.items():
        shutil.copy(file, OUTPUT / f"{modality.lower()}.dcm")
    segmentation = pydicom.dcmread(results["SEG"])
    referenced = segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
    images = [image for image in read_slices(files) if referenced == image.SeriesInstanceUID]
    draw(images, segmentation, OUTPUT / "overlay.png", "Synthetic CT with the segmentation the PACS received")
    for file in sorted(OUTPUT.iterdir()):
        console.print(f"wrote {file.relative_to(Path.cwd())}", highlight=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
