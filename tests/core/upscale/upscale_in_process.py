"""Runs one upscale as a process of its own, to be killed or starved: SRC DST OPTIONS-AS-JSON."""

import importlib.util
import json
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

    spec = importlib.util.spec_from_file_location(
        "small_models", Path(__file__).with_name("conftest.py")
    )
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    torch.set_num_threads(1)
    delay_s, limit = options.pop("delay_s", 0), options.pop("file_limit_bytes", None)
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    class Slow(models.ConvModel):
        def forward(self, video):
            time.sleep(delay_s)
            return super().forward(video)

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
