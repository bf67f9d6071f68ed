"""A real ComfyUI over HTTP, as tests see it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
# Generous: machines that test are often busy, and a busy server answers late.
ANSWER_S = 600
START_S = 600
RUN_S = 3000
# glibc raises by itself the size from which memory goes back to the system at once; what stays in
# its heaps then hides what a run leaves behind. At a fixed size resident memory is what is in use.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "2"}
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@dataclass
class Server:
    """A running ComfyUI with the pack and folders of its own."""

    url: str
    base: Path
    log: Path
    pid: int

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=ANSWER_S) as reply:
            return json.load(reply)

    def post(self, path, values):
        """The answer as JSON, also that of a refusal."""
        request = urllib.request.Request(
            self.url + path, json.dumps(values).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text) if text else {}

    def queue(self, prompt):
        """Queue a prompt in API form; its id."""
        answer = self.post("/prompt", {"prompt": prompt})
        assert "prompt_id" in answer, answer
        return answer["prompt_id"]

    def wait(self, prompt_id):
        """The finished run of a prompt."""
        end = time.monotonic() + RUN_S
        while time.monotonic() < end:
            if history := self.get(f"/history/{prompt_id}"):
                return Run(self, history[prompt_id])
            time.sleep(0.1)
        raise TimeoutError(self.log.read_text()[-3000:])

    def run(self, prompt):
        return self.wait(self.queue(prompt))

    def cpu_s(self):
        """Seconds of processor time so far: unlike time on the wall, other programs do not add."""
        values = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, name="VmRSS"):
        """Resident size; under the name VmHWM the largest so far."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (size,) = (int(line.split()[1]) for line in lines if line.startswith(name))
        return size / 1024

    def forget_peak(self):
        """Let VmHWM begin again at the size of now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@dataclass
class Run:
    """A finished run."""

    server: Server
    history: dict

    @property
    def is_success(self):
        return self.history["status"]["status_str"] == "success"

    def messages(self, kind):
        return [values for name, values in self.history["status"]["messages"] if name == kind]

    @property
    def error(self):
        """What the node said."""
        (message,) = self.messages("execution_error")
        return message["exception_message"]

    @property
    def cached(self):
        return {node for message in self.messages("execution_cached") for node in message["nodes"]}

    def files(self, node):
        """Files that a saving node wrote."""
        images = self.history["outputs"][node]["images"]
        return [self.server.base / i["type"] / i["subfolder"] / i["filename"] for i in images]

    def text(self, node):
        """What a PreviewAny node shows."""
        return self.history["outputs"][node]["text"][0]


@contextmanager
def start(comfyui, python, base):
    """Run a ComfyUI checkout on the CPU; every folder it uses is under `base`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "main.py", "--cpu", "--port", str(port), "--disable-api-nodes"]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
    log = base / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=comfyui, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **MALLOC}
        )
    running = Server(f"http://127.0.0.1:{port}", base, log, process.pid)
    try:
        _wait_for_start(running, process)
        yield running
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_start(server, process):
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            server.get("/system_stats")
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"ComfyUI did not start:\n{server.log.read_text()[-3000:]}")
