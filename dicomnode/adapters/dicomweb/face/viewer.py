"""OHIF (npm package @ohif/app, prebuilt), where its files are and how they are served. It is not part of the node."""

from __future__ import annotations

import json
import mimetypes
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from dicomnode.adapters.dicomweb.face.answer import Answer
from dicomnode.adapters.dicomweb.face.server import DICOMWEB
from dicomnode.errors import NotFound

OHIF = "@ohif/app@3.12.10"  # the release that this was tried with
_PLACES = ("", "dist", "package/dist", "node_modules/@ohif/app/dist")
_CONFIGURATION = "/app-config.js"
# OHIF 3.9 to 3.12 knows of a multi-frame source its first frame alone when it loads a segmentation (its issue 4645)
_MULTI_FRAME = """{
  id: 'dicomnode.multi-frame',
  preRegistration: ({ servicesManager }) => {
    const { displaySetService } = servicesManager.services;
    const add = ({ displaySetsAdded }) => displaySetsAdded.forEach(set => {
      const frames = Number(set.images?.length === 1 && set.images[0].NumberOfFrames) || 0;
      if (frames > 1 && !set.imageIds && /frames.1$/.test(set.images[0].imageId))
        set.imageIds = Array.from({ length: frames }, (_, n) => set.images[0].imageId.replace(/1$/, n + 1));
    });
    displaySetService.subscribe(displaySetService.EVENTS.DISPLAY_SETS_ADDED, add);
  },
}"""
# OHIF 3.12 makes the viewport anew, under the same name, when it opens a segmentation. An image that the former one
# still waited for is then put on the new one's canvas and stays there: under right overlays, whatever is scrolled to.
_LATE_IMAGES = """{
  id: 'dicomnode.late-images',
  preRegistration: () => {
    const stack = window.cornerstone?.StackViewport?.prototype;
    const show = stack?.successCallback;
    if (show) stack.successCallback = function (...image) {
      if (this.getRenderingEngine()?.getViewport(this.id) === this) show.apply(this, image);
    };
  },
}"""
# OHIF 3.12 gives a whole report up at the first measurement of it without coordinates, and shows nothing. A line in
# the patient it draws on no image of a stack: it is told the image whose plane the line lies in, and where there.
_REPORTS = """{
  $set: ({ measurement }) => {
    const [line] = measurement.coords;
    if (!line) return { ...measurement, coords: [{}] };
    if (line.ValueType !== 'SCOORD3D') return measurement;
    const frame = line.ReferencedFrameOfReferenceSequence, p = Array.from(line.GraphicData);
    const points = Array.from({ length: p.length / 3 }, (_, n) => p.slice(3 * n, 3 * n + 3));
    const apart = image => {
      const [a, b, c, d, e, f] = image.ImageOrientationPatient, [x, y, z] = image.ImagePositionPatient;
      const [i, j, k] = [b * f - c * e, c * d - a * f, a * e - b * d];
      return Math.max(...points.map(q => Math.abs((q[0] - x) * i + (q[1] - y) * j + (q[2] - z) * k)));
    };
    const image = window.services.displaySetService.getActiveDisplaySets().flatMap(set => set.images ?? [])
      .find(one => one.FrameOfReferenceUID === frame && one.ImageOrientationPatient && apart(one) < 0.01);
    if (image) {
      line.GraphicData = points.flatMap(q => window.cornerstone.utilities.worldToImageCoords(image.imageId, q));
      line.ReferencedSOPSequence = { ReferencedSOPInstanceUID: image.SOPInstanceUID };
      line.ValueType = 'SCOORD';
      line.ReferencedFrameOfReferenceSequence = '';
    }
    return measurement;
  },
}"""
_DAY = {"Cache-Control": "private, max-age=86400"}


def no_viewer(_: str) -> Answer | None:
    """For a service without a viewer."""
    return None


class OhifFiles:
    """Gives what lies in a folder of OHIF's, with a configuration of ours that knows of this service alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def __call__(self, path: str) -> Answer | None:
        if path == _CONFIGURATION:
            return Answer(HTTPStatus.OK, "text/javascript; charset=utf-8", configuration().encode())
        file = (self._folder / path.lstrip("/")).resolve() if "\0" not in path else self._folder
        if file.is_file() and file.is_relative_to(self._folder):
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            return Answer(HTTPStatus.OK, kind, file.read_bytes(), {} if file.suffix == ".html" else _DAY)
        if "." in path.rpartition("/")[2]:
            return None
        # a page of the application's own, as /viewer
        return Answer(HTTPStatus.OK, "text/html; charset=utf-8", (self._folder / "index.html").read_bytes())


def page_of(studies: Sequence[str], first_series: str = "") -> str:
    """OHIF's page with these studies, and the series that is opened at once; its own choice of one without."""
    query = {"StudyInstanceUIDs": ",".join(studies)}
    return "/viewer?" + urlencode(query | ({"initialSeriesInstanceUID": first_series} if first_series else {}))


def configuration() -> str:
    """OHIF's configuration: this service is its one source, and nothing is written or asked elsewhere."""
    source: dict[str, Any] = {
        "friendlyName": "dicomnode",
        "name": "dicomnode",
        "qidoRoot": f"/{DICOMWEB}",
        "wadoRoot": f"/{DICOMWEB}",
        "wadoUriRoot": f"/{DICOMWEB}",
        "qidoSupportsIncludeField": True,
        "supportsReject": False,
        "supportsStow": False,
        "dicomUploadEnabled": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "singlepart": "bulkdata,pdf",
        "bulkDataURI": {"enabled": True},
        "omitQuotationForMultipartRequest": True,
    }
    found = {
        "routerBasename": "/",
        "extensions": [],
        "modes": [],
        "customizationService": {"ohif.tours": {"$set": []}},  # no lesson in scrolling before each first look
        "disableConfirmationPrompts": True,  # a segmentation is drawn without asking
        "showStudyList": True,
        "maxNumberOfWebWorkers": 3,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": True,
        "strictZSpacingForVolumeViewport": True,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "dicomnode",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "dicomnode",
                "configuration": source,
            }
        ],
    }
    mended = f"""window.config.extensions.push({_MULTI_FRAME}, {_LATE_IMAGES});
window.config.customizationService.onBeforeSRAddMeasurement = {_REPORTS};
"""
    return f"window.config = {json.dumps(found, indent=2)};\n{mended}"


def find_ohif(folder: Path) -> Path:
    """The folder with OHIF's files, here or under here; npm's archive is unpacked the first time. Raises NotFound."""
    if found := _at(folder):
        return found
    archives = sorted(folder.glob("ohif-app-*.tgz")) if folder.is_dir() else []
    if not archives:
        raise NotFound(
            f"there is no OHIF under {folder}: it is a program of its own. Get it once: mkdir -p {folder} && "
            f"npm pack {OHIF} --pack-destination {folder}; or look at the images with another viewer: --no-viewer"
        )
    unpacked = folder / archives[-1].name.removesuffix(".tgz")
    return _at(unpacked) or _unpacked(archives[-1], unpacked)


def _at(folder: Path) -> Path | None:
    return next((folder / place for place in _PLACES if (folder / place / "index.html").is_file()), None)


def _unpacked(archive: Path, folder: Path) -> Path:
    """Whole, or not at all. Raises NotFound."""
    scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(scratch, filter="data")
        if _at(scratch) is None:
            raise NotFound(f"{archive} is no prebuilt OHIF; get it with: npm pack {OHIF}")
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise NotFound(f"{archive} cannot be unpacked ({error}); remove it and get it again") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = _at(folder)
    assert found is not None
    return found
