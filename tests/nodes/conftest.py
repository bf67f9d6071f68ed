"""ComfyUI for the tests: the checkout at COMFYUI_PATH, run as its users run it.

COMFYUI_PYTHON is the interpreter that has ComfyUI's requirements; without it, this one.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
START_S = 600  # generous: machines that test are often busy
RUN_S = 3000


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """A ComfyUI checkout."""
    value = os.environ.get("COMFYUI_PATH")
    path = Path(value) if value else ROOT.parent / "ComfyUI"
    if (path / "main.py").is_file():
        return path.resolve()
    reason = f"no ComfyUI checkout at {path}; set COMFYUI_PATH"
    if os.environ.get("OASIS_REQUIRE_COMFYUI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def pack(comfyui, tmp_path_factory) -> dict:
    """What ComfyUI sees of the pack after its own loader has loaded it."""
    out = tmp_path_factory.mktemp("pack") / "facts.json"
    command = [PYTHON, str(Path(__file__).with_name("describe_pack.py"))]
    command += [str(comfyui), str(ROOT), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, cwd=comfyui)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


@dataclass
class Server:
    """A running ComfyUI with the pack and folders of its own."""

    url: str
    base: Path
    log: Path
    pid: int

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as reply:
            return json.load(reply)

    def post(self, path, values):
        """The answer as JSON, also that of a refusal."""
        request = urllib.request.Request(
            self.url + path, json.dumps(values).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
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
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text()[-3000:])

    def run(self, prompt):
        return self.wait(self.queue(prompt))


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


@pytest.fixture(scope="session")
def server(comfyui, tmp_path_factory) -> Server:
    """ComfyUI on the CPU with this pack and nothing else."""
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "models/oasis", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / "oasis").symlink_to(ROOT, target_is_directory=True)
    shutil.copy(ROOT / "workflows" / "example_inputs" / "hand_held.mp4", base / "input")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "main.py", "--cpu", "--port", str(port), "--disable-api-nodes"]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
    log = base / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=comfyui, stdout=out, stderr=subprocess.STDOUT)
    running = Server(f"http://127.0.0.1:{port}", base, log, process.pid)
    try:
        _wait_for_start(running, process)
        yield running
    finally:
        process.terminate()
        process.wait(30)


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
