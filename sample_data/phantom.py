"""A synthetic CT study: `python -m sample_data.phantom OUT --protocol chest-abdomen --seed 1`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sample_data.dicom_files import StudyUids, axial_images, localizer, save
from sample_data.enhanced import enhanced_image
from sample_data.protocols import PROTOCOLS, Protocol
from sample_data.scanner import Scan, make_scan

__all__ = ["PROTOCOLS", "Scan", "make_scan", "write_scan", "write_study"]


def write_study(folder: Path, protocol: str, seed: int) -> str:
    """Writes the study of this protocol and seed under `folder`; its Study Instance UID."""
    chosen = PROTOCOLS[protocol]
    return write_scan(folder, make_scan(chosen, seed), chosen, seed)


def write_scan(folder: Path, scan: Scan, protocol: Protocol, seed: int) -> str:
    """Writes a scan as one study, a folder a series; its Study Instance UID."""
    uids = StudyUids(protocol.name, seed)
    if protocol.localizer:
        save(localizer(scan, protocol, uids), folder / "1-scout" / "0001.dcm")
    if protocol.enhanced:
        save(enhanced_image(scan, protocol, uids), folder / "2-enhanced" / "0001.dcm")
    else:
        for image in axial_images(scan, protocol, uids):
            save(image, folder / "2-axial" / f"{image.InstanceNumber:04d}.dcm")
    return uids.study


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), default="chest-abdomen")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(write_study(given.out, given.protocol, given.seed))


if __name__ == "__main__":
    main()
