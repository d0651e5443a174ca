"""`dicomnode preview`: a result as a radiologist sees it, in a browser."""

from __future__ import annotations

import secrets
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import bootstrap
from dicomnode.cli.context import Context
from dicomnode.errors import NotFound
from dicomnode.ports import JobFilter, JobView, State

_LOOKED_AT = 200  # of the newest jobs, when none is named
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def register(program: typer.Typer) -> None:
    program.command()(preview)


def preview(
    ctx: typer.Context,
    job: Annotated[
        str,
        typer.Argument(help="The job's id, or as much of its beginning as makes it unambiguous; else the newest."),
    ] = "",
    host: Annotated[str, typer.Option("--host", help="Address that is listened on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 0,
    viewer: Annotated[
        Path | None, typer.Option("--viewer", help="Folder with OHIF; else the folder viewer in the home.")
    ] = None,
    no_viewer: Annotated[
        bool, typer.Option("--no-viewer", help="Serve DICOMweb alone, for another viewer or program.")
    ] = False,
    opens: Annotated[bool, typer.Option("--open", help="Open it in this host's browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the results of a job over its images in a browser, with OHIF. ^C ends it.

    What is shown is read only, and only to be had with the printed address, which is another each time.
    Example: dicomnode preview 3f2a --open
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    meant = context.state.job(job) if job else _newest(context.state)
    folder = None if no_viewer else viewer or context.settings.viewer_folder
    key = secrets.token_urlsafe(24)
    with bootstrap.preview(context.store, context.state, meant, host=host, port=port, key=key, viewer=folder) as at:
        base = f"http://{f'[{host}]' if ':' in host else host}:{at}"
        address = f"{base}/dicom-web" if no_viewer else f"{base}/open?key={key}"
        _say(context, meant, address, key if no_viewer else "", host)
        if opens and not no_viewer:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


def _newest(state: State) -> JobView:
    """Of those that gave a result. Raises NotFound."""
    for job in state.jobs(JobFilter(), most=_LOOKED_AT):
        if job.results:
            return job
    raise NotFound("no job has given a result yet; what there is: dicomnode jobs list")


def _say(context: Context, job: JobView, address: str, key: str, host: str) -> None:
    kinds = ", ".join(result.kind for result in job.results) or "no result"
    words = f"{job.model}, job {job.job_id}: {kinds}\n{address}"
    words += f"\nwith the header Authorization: Bearer {key}" if key else ""
    if host not in _LOOPBACK:
        words += "\nWhoever reads the traffic of this network can read the images: HTTP does not conceal them."
    context.done(words, job_id=job.job_id, address=address, study_instance_uid=job.study_instance_uid, key=key)
