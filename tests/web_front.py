"""A real nginx before an archive's DICOMweb service: HTTPS with client certificates, credentials, limits, failures.

Everything of it lies in the folder that it is given; the system's own nginx and its configuration are not touched.
"""

from __future__ import annotations

import base64
import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.domain.destination import Destination, StowAddress
from tests.servers import Server, ServerFailed, free_ports, system_program

USER, PASSWORD, TOKEN = "node", "pass word", "t0ken-of-the-node"
_SERVERS = ("mutual", "server", "expired-server", "elsewhere-server", "foreign-server")


def nginx_missing() -> str:
    """Why no nginx can be started here; empty when it can."""
    return "" if system_program("nginx") else "nginx is not installed (apt install nginx-light)"


class WebFront(Server):
    """One port for each server certificate; "mutual" wants a client's certificate of `ca`, "plain" has no TLS.

    Paths: /dicom-web is what is at `behind`; /basic, /bearer, /forbidden, /small, /gone, /shut, /slow (nobody answers
    at `mute_port`), /moved.
    """

    def __init__(self, folder: Path, behind: str, certificates: Path, mute_port: int, closed_port: int) -> None:
        super().__init__(folder)
        self._behind, self._certificates = behind, certificates
        self._mute_port, self._closed_port = mute_port, closed_port
        names = (*_SERVERS, "plain")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))

    def destination(self, server: str = "server", path: str = "/dicom-web", **options: str) -> Destination:
        scheme = "http" if server == "plain" else "https"
        trusting = {} if server == "plain" else {"ca_file": str(self._certificates / "ca.pem")}
        url = f"{scheme}://127.0.0.1:{self.ports[server]}{path}"
        return Destination("front", StowAddress(url), DeliveryOptions(**(trusting | options)))  # type: ignore[arg-type]

    def command(self) -> list[str]:
        program = system_program("nginx")
        if program is None:
            raise ServerFailed(nginx_missing())
        (self.folder / "users").write_text(
            f"{USER}:{{SHA}}{base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()}\n"
        )
        (self.folder / "nginx.conf").write_text(self._configuration())
        return [str(program), "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]

    def ready(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.ports['plain']}/ready", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def _configuration(self) -> str:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"  {kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        servers = "".join(self._server(name) for name in self.ports)
        return (
            # one process, which is the one that is ended
            "daemon off; master_process off; pid nginx.pid;\nevents {}\n"
            f"http {{\n  access_log off; client_max_body_size 0;\n{temporary}{servers}}}\n"
        )

    def _server(self, name: str) -> str:
        tls = "" if name == "plain" else " ssl"
        certificate = "server" if name == "mutual" else name
        keys = (
            f"ssl_certificate {self._certificates}/{certificate}.pem; "
            f"ssl_certificate_key {self._certificates}/{certificate}.key;"
        )
        client = f"ssl_verify_client on; ssl_client_certificate {self._certificates}/ca.pem;"
        return (
            f"  server {{\n    listen 127.0.0.1:{self.ports[name]}{tls};\n"
            f"    {keys if tls else ''} {client if name == 'mutual' else ''}\n{self._locations()}  }}\n"
        )

    def _locations(self) -> str:
        behind = f"proxy_pass {self._behind}/;"
        alone = f'{behind} proxy_set_header Authorization "";'  # the credentials are for nginx
        users = f"{self.folder}/users"
        held = {
            "/dicom-web/": behind,
            "/basic/": f'auth_basic "archive"; auth_basic_user_file {users}; {alone}',
            "/bearer/": f'if ($http_authorization != "Bearer {TOKEN}") {{ return 401; }} {alone}',
            "/forbidden/": "deny all;",
            "/small/": f"client_max_body_size 1k; {behind}",
            "/gone/": f"proxy_pass http://127.0.0.1:{self._closed_port}/;",
            "/shut/": "return 503;",
            "/slow/": f"proxy_read_timeout 1s; proxy_pass http://127.0.0.1:{self._mute_port}/;",
            "/moved/": "return 301 /dicom-web/studies;",
            "/ready": 'return 200 "ready";',
        }
        return "".join(f"    location {path} {{ {what} }}\n" for path, what in held.items())
