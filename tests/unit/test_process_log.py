"""The log of a node's process: in its own file, whoever writes, and quiet about what only reports its set-up."""

import subprocess
import sys
from pathlib import Path

# in a process of its own: start_log takes over the loggers, the warnings and the fault handler
_PROCESS = """
import logging, sys
from pathlib import Path
from dbos._logger import init_logger
from dicomnode.config import Settings
from dicomnode.node.process import start_log

start_log(Settings(home=Path(sys.argv[1])), "worker-1")
init_logger()  # what DBOS does first
logging.getLogger("dbos").info("set up")
logging.getLogger("dbos").warning("the database is away")
logging.getLogger("alembic.runtime").info("context impl")
logging.getLogger("dicomnode.x").info("ours")
"""


def test_the_job_engine_logs_to_the_rotated_file_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    text = (tmp_path / "logs" / "worker-1.log").read_text()
    assert text.count("the database is away") == 1
    assert "ours" in text
    assert "set up" not in text
    assert "context impl" not in text


_READING = """
import io, sys
from pathlib import Path
from dicomnode.config import Settings
from dicomnode.node.process import start_log

start_log(Settings(home=Path(sys.argv[1])), "worker-1")
import pydicom  # late, as a node does: its import gives its logger a level of its own
import highdicom, logging
from pydicom.dataelem import DataElement
DataElement("PatientBirthDate", "DA", "born 1931", validation_mode=1)
logging.getLogger("highdicom.base").warning("born 1931")
logging.getLogger("dicomnode.x").info("ours")
"""


def test_values_of_data_sets_do_not_reach_the_log(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _READING, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "logs" / "worker-1.log").read_text()
    assert "ours" in text
    assert "1931" not in text + done.stderr + done.stdout
