"""Pre-activation residual networks with attention: RN-164-att, att2 (section 4 of the paper)."""

from torch import nn

from ltpa.models.attended import SHARED, AttendedClassifier
from ltpa.models.attention import AttentionUnit
from ltpa.models.blocks import ConvBlock, max_pool
from ltpa.models.families.resnet import Options
from ltpa.models.resnet import STAGES, ResNetTrunk

GLOBAL_CHANNELS = 256


def _global_branch(in_channels: int, channels: int, bn_eps: float) -> nn.Sequential:
    """The last level's map -> g (N, 256): BN, ReLU, pool, one convolution, pool to 1 x 1, dropout, linear."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        max_pool(2),
        ConvBlock(in_channels, channels, 0.4, bn_eps),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(channels, channels),
    )


def build_resnet_attention(options: Options, num_classes: int, image_size: int) -> AttendedClassifier:
    """RN of depth 9 x blocks_per_stage + 2 with attention at `options.levels`."""
    architecture = options.plain()
    channels = options.channels(STAGES["stage3"][0])
    last = options.levels[-1]
    trunk = ResNetTrunk(options, averaged=options.levels if options.legacy_grad_avg else (), last=last)
    branches: dict[str, nn.Module] = {}
    if options.compatibility != "local":
        branches[SHARED] = _global_branch(options.channels(STAGES[last][0]), channels, options.bn_eps)
    units: dict[str, AttentionUnit] = {
        level: AttentionUnit(
            options.channels(STAGES[level][0]),
            options.channels(GLOBAL_CHANNELS),
            options.compatibility,
            options.normalisation,
            options.project,
            options.attention_bias,
        )
        for level in options.levels
    }
    return AttendedClassifier(architecture, num_classes, image_size, trunk, branches, units, head_dropout=0.3)
