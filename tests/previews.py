"""A preview's server over files of a folder, and its address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, dcmread

from dicomnode.adapters.dicomweb.face.catalogue import Catalogue
from dicomnode.adapters.dicomweb.face.server import Files, PreviewServer, serving
from dicomnode.adapters.dicomweb.face.service import ReadOnlyService
from dicomnode.adapters.dicomweb.face.viewer import no_viewer, page_of
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.stages.preview import Shown

KEY = "the-key-of-this-test"


def shown(files: Sequence[Path]) -> list[Shown]:
    with odd_values_accepted():
        return [_shown(file, dcmread(file, stop_before_pixels=True)) for file in files]


def _shown(file: Path, header: Dataset) -> Shown:
    return Shown(str(header.StudyInstanceUID), str(header.SeriesInstanceUID), str(header.SOPInstanceUID), file)


def saved(folder: Path, objects: Sequence[Dataset]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with odd_values_accepted():
        for one in objects:
            paths.append(folder / f"{one.SOPInstanceUID}.dcm")
            one.save_as(paths[-1], enforce_file_format=True)
    return paths


@contextmanager
def previewed(files: Sequence[Path], viewer: Files = no_viewer, first_series: str = "") -> Iterator[str]:
    """The service's address, without a path."""
    catalogue = Catalogue(shown(files))
    page = page_of(catalogue.studies, first_series)
    server = PreviewServer(("127.0.0.1", 0), ReadOnlyService(catalogue), KEY, viewer, page)
    with serving(server):
        yield f"http://127.0.0.1:{server.port}"
