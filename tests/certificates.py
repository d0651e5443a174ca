"""Certificates of private authorities, made by openssl: good ones, and each kind of bad one."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SERVER_HERE = "subjectAltName=IP:127.0.0.1,DNS:localhost"
# name: (authority, days, extension)
_LEAVES = {
    "server": ("ca", 2, _SERVER_HERE),
    "expired-server": ("ca", -1, _SERVER_HERE),
    "elsewhere-server": ("ca", 2, "subjectAltName=DNS:pacs.example"),
    "foreign-server": ("other-ca", 2, _SERVER_HERE),
    "client": ("ca", 2, "extendedKeyUsage=clientAuth"),
    "expired-client": ("ca", -1, "extendedKeyUsage=clientAuth"),
    "foreign-client": ("other-ca", 2, "extendedKeyUsage=clientAuth"),
}


def make_certificates(folder: Path) -> Path:
    """NAME.pem and NAME.key of `ca`, `other-ca` and each of the above, and `both.pem`: the client's two in one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ca", "other-ca"):
        subject = ["-subj", f"/CN=Test {name}", "-days", "2"]
        _openssl(folder, "req", "-x509", *_new_key(name), *subject, "-out", f"{name}.pem")
    for name, (authority, days, extension) in _LEAVES.items():
        (folder / f"{name}.ext").write_text(extension)
        _openssl(folder, "req", *_new_key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr")
        by = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", f"{name}.ext"]
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *by, "-days", str(days), "-out", f"{name}.pem")
    (folder / "both.pem").write_bytes((folder / "client.pem").read_bytes() + (folder / "client.key").read_bytes())
    encrypt = ["-aes256", "-passout", "pass:secret", "-out", "encrypted.key"]
    _openssl(folder, "rsa", "-in", "client.key", *encrypt)
    return folder


def _new_key(name: str) -> list[str]:
    return ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key"]


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
