"""The methods, python_name -> what it is, by what they learn from; nothing is imported here."""

PAIR_METHODS = {
    "train_image": "PairEdit: content and semantic adapters, content-preserving schedule",
    "train_image_wocontent": "ablation: no content adapter",
    "train_image_wocfg": "ablation: no guidance term, the target image's own velocity",
    "train_image_fm": "ablation: rectified flow in place of the content-preserving schedule",
    "train_image_sliders": "baseline: image sliders, the target at scale +1 and the source at -1",
}
PHOTO_METHODS = {"train_image_real": "a LoRA that draws one photograph from any noise, on the rectified flow"}
TEXT_METHODS = {"slider_text": "text sliders: the base model's own direction between two prompts"}
