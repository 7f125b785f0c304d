"""The library behind the PairEdit scripts: configuration, data, method, training, sampling and metrics."""

import logging

# diffusers and peft import quantization libraries where these are installed, and they warn of what they lack
for _name in ("torch.utils._pytree", "bitsandbytes", "diffusers.quantizers.torchao"):
    logging.getLogger(_name).setLevel(logging.ERROR)
