"""Between ComfyUI and `oasis_core`: models, frames, progress and folders.

The only modules that touch `comfy.*`, `folder_paths` and `server`.
"""

from .folders import (
    check_output_name,
    is_named,
    keep_result,
    model_names,
    model_path,
    new_output,
    register_model_folder,
    temp_folder,
)
from .frames import alpha_of, check_images, check_memory, to_clip, to_images, to_video
from .models import (
    LoadedModel,
    from_upscale_model,
    load_model,
    make_model,
    managed,
    running,
)
from .reporting import Progress, check, progress

__all__ = [
    "LoadedModel",
    "Progress",
    "alpha_of",
    "check",
    "check_images",
    "check_memory",
    "check_output_name",
    "from_upscale_model",
    "is_named",
    "keep_result",
    "load_model",
    "make_model",
    "managed",
    "model_names",
    "model_path",
    "new_output",
    "progress",
    "register_model_folder",
    "running",
    "temp_folder",
    "to_clip",
    "to_images",
    "to_video",
]
