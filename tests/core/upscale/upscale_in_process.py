"""Runs one upscale as a process of its own, to be killed or starved: SRC DST OPTIONS-AS-JSON.

Besides options of `upscale_file`: `delay_s`, seconds that each call of the model waits;
`stall_after`, segments after which the model hangs, so that the run cannot end before it is killed;
`signal_after`, segments after which the process sends itself Ctrl-C; `file_limit_bytes`.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(source, destination, options):
    import torch

    from oasis_core.upscale import VideoUpscaler, upscale_file
    from oasis_core.upscale.journal import Journal

    spec = importlib.util.spec_from_file_location(
        "small_models", Path(__file__).with_name("conftest.py")
    )
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    torch.set_num_threads(1)
    # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    delay_s, limit = options.pop("delay_s", 0), options.pop("file_limit_bytes", None)
    stall_after = options.pop("stall_after", sys.maxsize)
    signal_after = options.pop("signal_after", sys.maxsize)
    num_recorded = 0
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    class Slow(models.ConvModel):
        def forward(self, video):
            time.sleep(delay_s if num_recorded < stall_after else 3600)
            return super().forward(video)

    record = Journal.record

    def record_and_count(*arguments):
        nonlocal num_recorded
        record(*arguments)
        num_recorded += 1
        if num_recorded == signal_after:
            os.kill(os.getpid(), signal.SIGINT)

    Journal.record = record_and_count
    upscaler = VideoUpscaler(Slow(), device="cpu", dtype="float32")
    say("ready")
    try:
        report = upscale_file(source, destination, upscaler=upscaler, **options)
    except ValueError as error:
        say(f"{type(error).__name__}: {error}")
        return 1
    say(json.dumps(report.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
