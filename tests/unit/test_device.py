"""Where jobs compute."""

import pytest
import torch

from ltpa.core.errors import LtpaError
from ltpa.stages.device import compute_device, describe_device


def test_cpu_sets_threads_and_treats_denormals_as_zero():
    with compute_device("cpu", 1) as device:
        assert describe_device(device) == "cpu"
        assert torch.get_num_threads() == 1
        assert float(torch.tensor([1e-40]) * 1.0) == 0.0
    assert float(torch.tensor([1e-40]) * 1.0) > 0.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_one_clear_error():
    with pytest.raises(LtpaError, match=r"jobs\.gpus is 1, but torch sees no GPU"), compute_device("cuda", 1):
        pass
