"""The two ends of a model, faithful and vivid, and what lies between them.

The vivid end is trained on from the faithful one, so that every mixture of their weights is a good
network, too. Only the convolutions differ: the transformer is the same at both ends.

Source: network interpolation, ESRGAN, arXiv 1809.00219, section 3.4.
"""

from __future__ import annotations

from torch import Tensor, nn

VIVID_PREFIX = "vivid."
"""Before the names of the vivid end's tensors in a file."""
CONVOLUTIONS = ("transformer.stem.", "decoder.")


def check_detail(detail: float | None) -> None:
    """Refuse a share that is none.

    Raises:
        ValueError: It is outside [0, 1].
    """
    if detail is not None and not 0 <= detail <= 1:
        raise ValueError(
            f"detail must be between 0 (faithful) and 1 (vivid), got {detail}; leave it out for "
            "the model's own choice"
        )


def vivid_names(model: nn.Module) -> list[str]:
    """The tensors that differ between the ends; none in a model without a conv decoder."""
    if model.config.is_latent:
        return []
    return [name for name in model.state_dict() if name.startswith(CONVOLUTIONS)]


def mix(faithful: dict[str, Tensor], vivid: dict[str, Tensor], detail: float) -> dict[str, Tensor]:
    """The tensors between two ends, exactly those of an end at 0 and 1.

    Args:
        faithful: Tensors by name; more than `vivid` has are not looked at.
        vivid: Tensors of one end, by the same names and of the same shapes.
        detail: Share of the vivid end, in [0, 1].
    """
    if detail == 0:
        return {name: faithful[name] for name in vivid}
    return {name: faithful[name].lerp(tensor, detail) for name, tensor in vivid.items()}
