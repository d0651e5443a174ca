"""Debian's Chromium without a screen, driven through its pipe by the DevTools protocol's JSON messages."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_SIZE = (1280, 960)


class BrowserFailed(Exception):
    """Says what the page, or the browser, said."""


class Page:
    """One page; `said` is what its console and its requests said so far."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number, self._rest = 0, b""
        self._session = ""
        self.said: list[str] = []
        self.requested: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=_SIZE[0], height=_SIZE[1], deviceScaleFactor=1, mobile=False
        )

    def call(self, method: str, timeout_s: float = 60.0, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout_s
        while True:
            answer = self._next(end, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserFailed(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._note(answer)

    def _next(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0.0))
            if not ready:
                raise BrowserFailed(f"no answer to {method} in time")
            if not (piece := os.read(self._read, 1 << 20)):
                raise BrowserFailed("the browser ended")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning"):
                texts = [str(a.get("description", a.get("value", ""))) for a in parameters["args"]]
                self.said.append(" ".join(texts)[:400])
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                self.said.append(str(details.get("exception", {}).get("description", details.get("text")))[:400])
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Network.responseReceived" if parameters["response"]["status"] >= 400:
                self.said.append(f"{parameters['response']['status']} {parameters['response']['url']}")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str, timeout_s: float = 60.0) -> Any:
        """Its value, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", timeout_s, expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserFailed(str(found["exceptionDetails"].get("exception", {}).get("description"))[:600])
        return found["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 60.0) -> Any:
        """The first value of it that is true."""
        end = time.monotonic() + timeout_s
        while not (
            found := self.evaluate(
                f"(() => {{ try {{ return ({expression.strip()}) }} catch (e) {{ return null }} }})()"
            )
        ):
            if time.monotonic() > end:
                raise BrowserFailed(f"never true: {expression}\n" + "\n".join(self.said[-15:]))
            time.sleep(0.1)
        return found

    def picture(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page in a browser that keeps what it keeps under `folder` and knows no network but this host."""
    assert CHROMIUM is not None
    to_browser, from_browser = os.pipe(), os.pipe()
    command: Sequence[str] = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",  # tests may run as root, in containers
        "--remote-debugging-pipe",
        f"--user-data-dir={folder / 'profile'}",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--ignore-gpu-blocklist",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        f"--window-size={_SIZE[0]},{_SIZE[1]}",
    ]
    # it reads from descriptor 3 and writes to 4
    script = f'exec "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
    log = (folder / "chromium.log").open("wb")
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        pass_fds=(to_browser[0], from_browser[1]),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)},
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Page(to_browser[1], from_browser[0])
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to_browser[1])
        os.close(from_browser[0])
        log.close()
