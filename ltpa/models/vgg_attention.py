"""The 17-layer VGG networks with attention: VGG-att, att2, att3 (section 4 of the paper)."""

from torch import nn

from ltpa.models.attended import SHARED, AttendedClassifier
from ltpa.models.attention import AttentionUnit
from ltpa.models.families.vgg_att import Options
from ltpa.models.vgg import CHANNELS, GLOBAL_CHANNELS, GlobalBranch, VggTrunk, late_pools


def _global_branches(options: Options) -> dict[str, nn.Module]:
    if options.compatibility == "local":
        return {}
    if options.global_branches == "shared":
        return {SHARED: _branch_from(options, options.levels[-1])}
    return {level: _branch_from(options, level) for level in options.levels}


def _branch_from(options: Options, level: str) -> GlobalBranch:
    """A global branch whose first pool brings the level's map to a quarter of the 16 x 16 map of conv10."""
    first_pool = {"conv7": 8, "conv10": 4, "conv13": 2}[level]
    return GlobalBranch(options, options.channels(CHANNELS[level]), first_pool)


def build_vgg_attention(options: Options, num_classes: int, image_size: int) -> AttendedClassifier:
    """VGG-att, att2, att3: the first two pools moved behind conv14 and conv15, attention at `options.levels`."""
    cub, attends_conv7 = options.pools == "cub", "conv7" in options.levels
    trunk = VggTrunk(
        options,
        late_pools(cub, attends_conv7),
        before_attention=nn.AdaptiveMaxPool2d(32) if cub and attends_conv7 else None,
        averaged=options.levels if options.legacy_grad_avg else (),
        last=options.levels[-1],
    )
    units: dict[str, AttentionUnit] = {
        level: AttentionUnit(
            options.channels(CHANNELS[level]),
            options.channels(GLOBAL_CHANNELS),
            options.compatibility,
            options.normalisation,
            options.project,
            options.attention_bias,
        )
        for level in options.levels
    }
    architecture = options.plain()
    branches = _global_branches(options)
    return AttendedClassifier(architecture, num_classes, image_size, trunk, branches, units, head_dropout=0.5)
