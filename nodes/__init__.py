"""ComfyUI nodes of OASIS: thin shells over `oasis_core`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ._adapters import register_model_folder
from ._renamed import register_renamed
from .apply_routing import OASISApplyRouting
from .calibrate_routing import OASISCalibrateRouting
from .compare import OASISCompare
from .degrade import OASISDegrade
from .denoise_to_latent import OASISDenoiseToLatent
from .example_clip import OASISExampleClip
from .from_upscale_model import OASISFromUpscaleModel
from .load_model import OASISLoadModel
from .split_tiles import OASISSplitTiles
from .stitch_tiles import OASISStitchTiles
from .upscale_images import OASISUpscaleImages
from .upscale_tiles import OASISUpscaleTiles
from .upscale_video import OASISUpscaleVideo

NODES: list[type[io.ComfyNode]] = [
    OASISLoadModel,
    OASISFromUpscaleModel,
    OASISUpscaleVideo,
    OASISUpscaleImages,
    OASISCompare,
    OASISSplitTiles,
    OASISUpscaleTiles,
    OASISStitchTiles,
    OASISDegrade,
    OASISCalibrateRouting,
    OASISApplyRouting,
    OASISDenoiseToLatent,
    OASISExampleClip,
]


class OASISExtension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes, in the order of the menu."""
        return NODES


async def comfy_entrypoint() -> OASISExtension:
    """Called by ComfyUI once, when it loads the pack."""
    # Not in `on_load`, which ComfyUI before 0.16 never calls.
    register_model_folder()
    await register_renamed()
    return OASISExtension()
