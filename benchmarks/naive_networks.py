"""The networks written down plainly: eager float32 PyTorch in NCHW, the equations of the paper as they are printed.

What `models.py` measures ours against. `build` gives a network whose parameters come in the same order as ours, so that
`copy_weights` can make the two compute the same thing. Only the pools of 32 x 32 networks are written here.
"""

import torch
from torch import nn
from torch.nn import functional as F

CONVS = [
    (64, 0.3), (64, 0), (128, 0.4), (128, 0), (256, 0.4), (256, 0.4), (256, 0),
    (512, 0.4), (512, 0.4), (512, 0), (512, 0.4), (512, 0.4), (512, 0),
]  # fmt: skip


def block(before, after, dropout=0.0):
    layers = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after, eps=1e-3), nn.ReLU()]
    return layers + ([nn.Dropout(dropout)] if dropout else [])


def vector_block(channels, dropout):
    return nn.Sequential(nn.BatchNorm1d(channels), nn.ReLU(), nn.Dropout(dropout))


class Baseline(nn.Module):
    """Layers that end in a vector, and a linear classifier."""

    def __init__(self, body, features, classes):
        super().__init__()
        self.body = body
        self.head = nn.Linear(features, classes)

    def forward(self, x):
        """A list of one tensor of logits (N, classes)."""
        return [self.head(self.body(x))]


def vgg(wide, classes):
    layers, before = [], 3
    for number, (channels, dropout) in enumerate(CONVS, start=1):
        layers += block(before, wide(channels), dropout)
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if number in (2, 4, 7, 10) else []
        before = wide(channels)
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(before, before)]
    layers += [nn.BatchNorm1d(before), nn.ReLU(), nn.Dropout(0.5)]
    return Baseline(nn.Sequential(*layers), before, classes)


def sections(wide):
    """conv1-7, conv8-10 and conv11-13, without the pools between them."""
    parts, before = [], 3
    for first, last in ((0, 7), (7, 10), (10, 13)):
        layers = []
        for channels, dropout in CONVS[first:last]:
            layers += block(before, wide(channels), dropout)
            before = wide(channels)
        parts.append(nn.Sequential(*layers))
    return nn.ModuleList(parts)


def vgg_gap(wide, classes):
    first, second, third = sections(wide)
    pool = nn.MaxPool2d(2, ceil_mode=True)
    body = nn.Sequential(first, pool, second, pool, third, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Baseline(body, wide(512), classes)


def global_branch(before, channels, first_pool):
    return nn.Sequential(
        nn.MaxPool2d(first_pool, ceil_mode=True),
        *block(before, channels, 0.4),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(channels, channels),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(channels, channels),
    )


class Attention(nn.Module):
    """Equations 1 to 3 on one map: local (N, C, h, w), g (N, D) -> g_a (N, C)."""

    def __init__(self, channels, global_channels, options):
        super().__init__()
        self.kind, self.normalisation = options["compatibility"], options.get("normalisation", "softmax")
        self.project_local = self.project_global = None
        self.channels = channels
        if channels != global_channels and options.get("project") == "local":
            self.project_local = nn.Conv2d(channels, global_channels, 1)
            self.channels = global_channels
        elif channels != global_channels and self.kind != "local":
            self.project_global = nn.Sequential(
                vector_block(global_channels, 0.5), nn.Linear(global_channels, channels)
            )
        if self.kind != "dp":
            self.u = nn.Conv2d(self.channels, 1, 1, bias=self.kind != "local")

    def forward(self, local, g):
        """g_a of every image."""
        if self.project_local is not None:
            local = self.project_local(local)
        if self.project_global is not None:
            g = self.project_global(g)
        count, channels, height, width = local.shape
        if self.kind == "local":
            scores = self.u(local)
        else:
            spread = g.view(count, channels, 1, 1).expand(count, channels, height, width)
            if self.kind == "pc":
                scores = self.u(local + spread)
            elif self.kind == "tanh":
                scores = self.u(torch.tanh(local + spread))
            else:
                scores = (local * spread).sum(dim=1, keepdim=True)
        scores = scores.view(count, -1)
        if self.normalisation == "softmax":
            weights = F.softmax(scores, dim=1)
        else:
            weights = torch.sigmoid(scores) / torch.sigmoid(scores).sum(dim=1, keepdim=True)
        return (weights.view(count, 1, height, width) * local).view(count, channels, -1).sum(dim=2)


class Classifiers(nn.Module):
    """BatchNorm, ReLU and dropout on each vector; one linear layer on all of them, or one on each."""

    def __init__(self, channels, classes, head, dropout):
        super().__init__()
        self.norms = nn.ModuleList(vector_block(count, dropout) for count in channels)
        inputs = channels if head == "indep" else [sum(channels)]
        self.linears = nn.ModuleList(nn.Linear(count, classes) for count in inputs)

    def forward(self, vectors):
        """A list of logits, one tensor per classifier."""
        normed = [norm(vector) for norm, vector in zip(self.norms, vectors, strict=True)]
        inputs = normed if len(self.linears) > 1 else [torch.cat(normed, dim=1)]
        return [linear(value) for linear, value in zip(self.linears, inputs, strict=True)]


class Attended(nn.Module):
    """A trunk that gives a dictionary of maps, global branches, an attention unit per level, classifiers."""

    def __init__(self, trunk, branches, units, classes, head, dropout):
        super().__init__()
        self.trunk, self.branches, self.units = trunk, nn.ModuleDict(branches), nn.ModuleDict(units)
        self.classifiers = Classifiers([unit.channels for unit in units.values()], classes, head, dropout)

    def forward(self, x):
        """A list of logits, one tensor per classifier."""
        maps = self.trunk(x)
        last = list(self.units)[-1]
        shared = self.branches["shared"](maps[last]) if "shared" in self.branches else None
        vectors = []
        for level, unit in self.units.items():
            g = self.branches[level](maps[level]) if level in self.branches else shared
            vectors.append(unit(maps[level], g))
        return self.classifiers(vectors)


class VggTrunk(nn.Module):
    """conv1-13 and the two pools between their sections."""

    def __init__(self, wide):
        super().__init__()
        self.sections = sections(wide)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, x):
        """The maps by layer name."""
        conv7 = self.sections[0](x)
        conv10 = self.sections[1](self.pool(conv7))
        return {"conv7": conv7, "conv10": conv10, "conv13": self.sections[2](self.pool(conv10))}


def vgg_attention(options, wide, classes):
    channels = {"conv7": wide(256), "conv10": wide(512), "conv13": wide(512)}
    first_pools = {"conv7": 8, "conv10": 4, "conv13": 2}
    levels, g = options["levels"], wide(512)
    if options["compatibility"] == "local":
        branches = {}
    elif options["global_branches"] == "shared":
        branches = {"shared": global_branch(channels[levels[-1]], g, first_pools[levels[-1]])}
    else:
        branches = {level: global_branch(channels[level], g, first_pools[level]) for level in levels}
    units = {level: Attention(channels[level], g, options) for level in levels}
    return Attended(VggTrunk(wide), branches, units, classes, options["head"], 0.5)


class Pan(nn.Module):
    """Sigmoid gate on conv10, softmax attention on conv13."""

    def __init__(self, options, wide, classes):
        super().__init__()
        self.sections = sections(wide)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.gate_branch = global_branch(wide(512), wide(512), 4)
        self.last_branch = global_branch(wide(512), wide(512), 2)
        self.u = nn.Conv2d(wide(512), 1, 1)
        self.unit = Attention(wide(512), wide(512), options)
        self.classifiers = Classifiers([wide(512)], classes, "concat", 0.5)

    def forward(self, x):
        """A list of one tensor of logits (N, classes)."""
        conv10 = self.sections[1](self.pool(self.sections[0](x)))
        g = self.gate_branch(conv10)
        gate = torch.sigmoid(self.u(conv10 + g.view(*g.shape, 1, 1).expand_as(conv10)))
        conv13 = self.sections[2](self.pool(gate * conv10))
        return self.classifiers([self.unit(conv13, self.last_branch(conv13))])


class Residual(nn.Module):
    """A bottleneck with activation before its convolutions; the first of a stage has one in its shortcut."""

    def __init__(self, before, inner, after, stride, first):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, inner, 1, stride=stride, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(inner), nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(inner), nn.Conv2d(inner, after, 1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False) if first else None

    def forward(self, x):
        """(N, before, h, w) -> (N, after, h / stride, w / stride)."""
        active = F.relu(self.norm1(x))
        y = F.relu(self.norm2(self.conv1(active)))
        y = self.conv3(F.relu(self.norm3(self.conv2(y))))
        return y + (x if self.shortcut is None else self.shortcut(active))


class ResNetTrunk(nn.Module):
    """conv1 and three stages."""

    def __init__(self, options, wide):
        super().__init__()
        self.conv1 = nn.Conv2d(3, wide(16), 3, padding=1, bias=False)
        before, stages = wide(16), []
        for full, stride in ((64, 1), (128, 2), (256, 2)):
            units = []
            for number in range(options["blocks_per_stage"]):
                units.append(Residual(before, wide(full // 4), wide(full), stride if not number else 1, not number))
                before = wide(full)
            stages.append(nn.Sequential(*units))
        self.stages = nn.ModuleList(stages)

    def forward(self, x):
        """The maps by stage."""
        stage2 = self.stages[1](self.stages[0](self.conv1(x)))
        return {"stage2": stage2, "stage3": self.stages[2](stage2)}


class Last(nn.Module):
    """Picks the map that the baseline classifies."""

    def forward(self, maps):
        """The map of stage 3."""
        return maps["stage3"]


def resnet(options, wide, classes):
    trunk, channels = ResNetTrunk(options, wide), wide(256)
    if not options["levels"]:
        end = [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return Baseline(nn.Sequential(trunk, Last(), *end), channels, classes)
    branch = nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(channels, channels, 0.4),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(channels, channels),
    )
    units = {
        level: Attention(wide({"stage2": 128, "stage3": 256}[level]), channels, options) for level in options["levels"]
    }
    return Attended(trunk, {"shared": branch}, units, classes, options["head"], 0.3)


def build(architecture, classes):
    """The network of a resolved architecture (`ltpa.models.resolve_architecture`); it returns a list of logits."""
    family = architecture["family"]

    def wide(full):
        return max(4, round(full * architecture["width"]))

    if family == "vgg":
        return vgg(wide, classes)
    if family == "vgg-gap":
        return vgg_gap(wide, classes)
    if family == "vgg-pan":
        return Pan(architecture, wide, classes)
    if family == "vgg-att":
        return vgg_attention(architecture, wide, classes)
    return resnet(architecture, wide, classes)


def copy_weights(naive, ours):
    """Fill `naive` with the weights and statistics of `ours`, one after the other; their shapes must agree."""
    for (name, target), source in zip(naive.state_dict().items(), ours.state_dict().values(), strict=True):
        if target.shape != source.shape:
            raise ValueError(f"{name}: {tuple(target.shape)} here, {tuple(source.shape)} there")
        target.copy_(source)
