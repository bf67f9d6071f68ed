"""The node that stops before the decoder."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from . import _adapters
from ._errors import plain_errors
from ._schema import AUTO, check_number, model_input, scale_input, schema, widget


class OASISDenoiseToLatent(io.ComfyNode):
    """Small frames in, the clean Wan 2.1 latent of the large ones out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISDenoiseToLatent",
            display_name="OASIS Denoise to Latent",
            description="Restore a clip with a model of the oasis-1.3b family and stop before the "
            "decoder, so that VAE Decode, its tiled form or a sampler for Wan 2.1 goes on.",
            search_aliases=["wan latent", "super resolution latent", "encode"],
            is_experimental=True,
            inputs=[
                model_input(),
                io.Image.Input("images", tooltip="Frames of one clip in order, or one image."),
                scale_input(
                    "Factor for both sides; the sides are rounded up to multiples of 16. Time and "
                    "memory grow with its square."
                ),
                widget(
                    io.Int.Input,
                    "tile_px",
                    default=AUTO,
                    min=0,
                    max=8192,
                    step=16,
                    advanced=True,
                    tooltip="Side of a tile in output pixels; 0 takes whole frames. Smaller needs "
                    "less memory and takes longer.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "latent",
                    display_name="latent",
                    tooltip="In the space of the Wan 2.1 VAE, 1 + ceil((frames - 1) / 4) frames.",
                ),
                io.Int.Output(
                    "frames",
                    display_name="frames",
                    tooltip="Frames that came in: decoding gives up to three more, copies of the "
                    "last.",
                ),
            ],
        )

    @classmethod
    @plain_errors
    def execute(
        cls, model: _adapters.LoadedModel, images: Tensor, scale: float, tile_px: int
    ) -> io.NodeOutput:
        """Predict the latent."""
        from ..oasis_core.upscale.latents import check_has_latent, denoise_to_latent

        check_number("scale", scale)
        check_has_latent(model.restorer)
        video = _adapters.to_video(images)
        with (
            _adapters.progress("tiles") as report,
            _adapters.running(model, report) as upscaler,
        ):
            latent = denoise_to_latent(
                upscaler,
                video,
                scale=scale,
                tile_px=tile_px or None,
                on_progress=report,
            )
        return io.NodeOutput({"samples": latent}, len(images))
