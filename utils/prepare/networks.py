"""Small networks in files: TensorFlow Lite's by ai-edge-litert, run on one core or two of the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class LiteNetwork:
    """A .tflite file as a function of one array."""

    def __init__(self, file: Path) -> None:
        """Load it; raises ValueError for a file that is none."""
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(file), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [details["index"] for details in self._interpreter.get_output_details()]

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The outputs, each without its batch dimension, for an input (1, H, W, 3) of float32."""
        self._interpreter.set_tensor(self._input, pixels.astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]
