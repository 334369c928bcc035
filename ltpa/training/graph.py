"""A step recorded once as a CUDA graph and played back: one launch in place of a thousand.

Never run on a GPU so far; `benchmarks/train.py --device cuda` compares it with direct steps there.
"""

from collections.abc import Callable

import torch

# Steps that run directly before one is recorded: libraries set themselves up, and a velocity gets its first value.
WARM_UP = 3


class StepGraph:
    """Runs a computation on `device`, directly at first, then from a recording.

    The computation must read and write nothing but tensors that stay where they are, and must not wait for the device.
    The first steps are real ones, on the stream that will record, as recording asks for. Recording does not execute;
    dropout's random numbers go on from where they were, as the recording reads seed and offset of torch's own generator
    each time it is played.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = 0

    def run(self, compute: Callable[[], None]) -> None:
        """Compute once more; always the same computation until `forget`."""
        with torch.cuda.device(self._device):
            if self._warm < WARM_UP:
                self._run_directly(compute)
                self._warm += 1
                return
            if self._graph is None:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=self._stream):
                    compute()
                self._graph = graph
            self._graph.replay()

    def forget(self) -> None:
        """Drop the recording and warm up again: tensors that it writes to have been replaced."""
        if self._graph is not None:
            torch.cuda.synchronize(self._device)  # it may still be playing
        self._graph, self._warm = None, 0

    def _run_directly(self, compute: Callable[[], None]) -> None:
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            compute()
        main.wait_stream(self._stream)
