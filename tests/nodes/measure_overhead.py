"""Run inside ComfyUI's interpreter: what the video node takes beyond the shell's engine.

python measure_overhead.py COMFYUI PACK FOLDER

Both do the same job in turn in one process; compared is its processor time.
"""

import asyncio
import statistics
import sys
import time
from importlib import import_module
from pathlib import Path

NUM_PAIRS = 5
WARM_UP = 1
JOB = {"size": (640, 360), "segment_frames": 24, "crf": 16.0, "codec": "h264", "duration_s": 0.5}


def main(comfyui: str, pack: str, folder: str) -> None:
    sys.path.insert(0, comfyui)
    sys.argv = sys.argv[:1]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args

    # Before anything else of comfy, which would look for CUDA.
    comfy.cli_args.args.cpu = True
    import utils.install_util  # noqa: F401 - before `nodes`, which puts comfy/ on the path

    import nodes

    asyncio.run(nodes.load_custom_node(pack))
    name = pack.replace(".", "_x_")
    import folder_paths
    import torch

    folder_paths.set_temp_directory(folder)
    core = import_module(f"{name}.oasis_core")
    load, node = (
        getattr(import_module(f"{name}.nodes.{file}"), f"OASIS{title}")
        for file, title in (("load_model", "LoadModel"), ("upscale_video", "UpscaleVideo"))
    )
    video = import_module(f"{name}.nodes.example_clip").OASISExampleClip.execute().args[0]
    source = video.get_stream_source()
    model = load.execute("oasis-tiny", "float32", "own", 0.75, False, False).args[0]
    upscaler = core.load(device="cpu", dtype="float32")
    ratios = []
    with torch.inference_mode():
        for index in range(WARM_UP + NUM_PAIRS):
            strength = 1 - index / 1000  # a job of its own: finished ones are found again
            out, job = Path(folder) / f"shell{index}.mp4", {**JOB, "strength": strength}
            shell_s = spent(lambda o=out, j=job: core.upscale_file(source, o, model=upscaler, **j))
            first = ("by scale", 4.0, strength, JOB["duration_s"], JOB["codec"], "", *JOB["size"])
            values = (*first, True, 0, JOB["segment_frames"], True, "good", JOB["crf"], "auto")
            node_s = spent(lambda v=values: node.execute(model, video, *v))
            print(f"shell {shell_s:.2f} s, node {node_s:.2f} s", flush=True)  # noqa: T201
            ratios.append(node_s / shell_s)
    share = statistics.median(ratios[WARM_UP:]) - 1
    print(f"the node takes {100 * share:+.1f} %")  # noqa: T201


def spent(job) -> float:
    """Processor seconds of a call."""
    start = time.process_time()
    job()
    return time.process_time() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
