"""Which linears each train_method trains. Nothing is imported here, so that a config is checked at once."""

_IMAGE_STREAM = ("to_q", "to_k", "to_v", "to_out.0")
_TEXT_STREAM = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

# train_method -> the linears inside attention that get a LoRA. FLUX has no separate cross-attention: double
# blocks attend jointly over text and image with a set of projections for each stream, single blocks over both
# with one set (to_q, to_k, to_v; their output projection lies outside attention). So "xattn" is the text
# stream, the part of attention that text conditions through, and "xattn-strict" its keys and values.
TARGETS: dict[str, tuple[str, ...]] = {
    "full": (*_IMAGE_STREAM, *_TEXT_STREAM),
    "image": _IMAGE_STREAM,
    "xattn": _TEXT_STREAM,
    "xattn-strict": ("add_k_proj", "add_v_proj"),
}
