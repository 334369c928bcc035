"""RAM, the recurrent model of visual attention (Mnih, Heess, Graves and Kavukcuoglu, NIPS 2014).

Locations are (x, y): (0, 0) is the centre of the image and (-1, -1) its top left corner. A location is drawn around the
policy's mean and used as it was drawn; only where the sensor reads it is it limited to the image.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.core.errors import ModelError
from ltpa.models.base import AttentionClassifier
from ltpa.models.families.ram import Options
from ltpa.models.looking import Glimpsing, Walk
from ltpa.models.policy import gaussian_log_density, leave_one_out, score_loss
from ltpa.models.scheduled import Scheduled
from ltpa.models.small import seen


def centre_pixel(location: Tensor, side: int) -> Tensor:
    """(..., 2) row and column c = floor((l + 1) S / 2) of locations (x, y), limited to the image: 0 to S.

    A location that is no number gets some pixel, so that it ends in a loss that is not finite, not in a bad index.
    """
    limited = location.flip(-1).clamp(-1, 1)
    return ((limited + 1) * (side / 2)).floor().long().clamp(0, side)


class Sensor(nn.Module):
    """Square patches around a location, each twice as wide as the one before.

    Patch s has side g 2^s and covers rows c - g 2^(s-1) to c + g 2^(s-1) - 1, zeros outside the image, and is brought
    to g x g by the mean over 2^s x 2^s pixels (section 3 of the paper, where it is the retina-like representation).
    """

    def __init__(self, side: int, scales: int) -> None:
        super().__init__()
        self.side, self.scales = side, scales

    def forward(self, x: Tensor, location: Tensor) -> Tensor:
        """(N, scales g^2 C) from images (N, C, S, S) and locations (N, 2)."""
        count, channels, size, _ = x.shape
        widest = self.side << (self.scales - 1)
        padded = F.pad(x, [widest // 2] * 4)
        offset = torch.arange(widest, device=x.device)
        rows, columns = (start[:, None] + offset for start in centre_pixel(location.detach(), size).unbind(-1))
        cell = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).flatten(1)
        window = padded.flatten(2).gather(2, cell[:, None].expand(-1, channels, -1))
        window = window.view(count, channels, widest, widest)
        patches = []
        for scale in range(self.scales):
            cut = (widest - (self.side << scale)) // 2
            patch = window[:, :, cut : widest - cut, cut : widest - cut]
            patches.append(F.avg_pool2d(patch, 1 << scale).flatten(1))
        return torch.cat(patches, 1)


def tent(location: Tensor, glimpse: int, side: int) -> Tensor:
    """Maps (N, S, S) that sum to 1, highest at the pixel a glimpse is centred on and zero outside its finest patch.

    A patch of equal weights would have its peak in its first pixel, half a glimpse away from where it looks.
    """
    centre = centre_pixel(location, side).clamp_max(side - 1)
    pixel = torch.arange(side, device=location.device)
    distance = (pixel - centre[..., None]).abs()
    rows, columns = (1 - distance.to(location.dtype) / ((glimpse + 1) / 2)).clamp_min(0).unbind(-2)
    maps = rows[..., :, None] * columns[..., None, :]
    return maps / maps.sum((-2, -1), keepdim=True)


class Ram(AttentionClassifier, Glimpsing, Scheduled):
    """Glimpse network, recurrent core, and linear layers for classes, locations and the baseline of the reward.

    Cross-entropy trains all but `location` and `baseline`; rewards train `location` (and the core through it, under
    `policy_gradient: core`); the squared error of the baseline trains `baseline` alone, also while locations are
    uniform, so that the first rewards of a policy meet a baseline that knows them. Until then `location` gets no
    gradient at all: zeros would empty Adam's means of squares, and the first rewards would then move the policy far too
    much.

    Attributes:
        chooses: whether training draws locations around the policy's means.
    """

    _std: Tensor  # neither buffer nor parameter: what is loaded from a file needs no value of it

    def __init__(self, options: Options, num_classes: int, image_size: int) -> None:
        super().__init__(options.plain(), num_classes, image_size)
        self.options = options
        self.glimpses = options.glimpses
        self.attention_levels = options.map_levels
        hidden, what, where = (options.units(each) for each in (options.hidden, options.what, options.where))
        self.feature_dim = hidden
        self.sensor = Sensor(options.glimpse, options.scales)
        self.what = nn.Linear(options.scales * options.glimpse**2 * options.inputs, what)
        self.where = nn.Linear(2, where)
        self.glimpse_what = nn.Linear(what, hidden)
        self.glimpse_where = nn.Linear(where, hidden)
        self.core_state = nn.Linear(hidden, hidden)
        self.core_glimpse = nn.Linear(hidden, hidden)
        self.action = nn.Linear(hidden, num_classes)
        if options.policy == "learned":
            self.location = nn.Linear(hidden, 2)
            if options.baseline == "learned":
                self.baseline = nn.Linear(hidden, 1)
        self._std = self.action.weight.new_tensor(options.std[0])
        self.chooses = False
        self.advance(0.0)

    def reset_parameters(self) -> None:
        """As torch draws linear layers; `location` is zero, so that the first policy looks at the centre."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()
        if self.options.policy == "learned":
            nn.init.zeros_(self.location.weight)
            nn.init.zeros_(self.location.bias)

    def advance(self, share: float) -> bool:
        """Uniform locations for the share `policy_warmup`; after it the standard deviation moves evenly."""
        first, last = self.options.std
        warmup = self.options.policy_warmup
        if self._std.device != self.action.weight.device:
            self._std = self._std.new_zeros((), device=self.action.weight.device)
        self._std.fill_(first + (last - first) * max(0.0, share - warmup) / (1 - warmup))
        before, self.chooses = self.chooses, self.options.policy == "learned" and share >= self.options.policy_warmup
        return before != self.chooses

    def step(self, x: Tensor, location: Tensor, state: Tensor) -> Tensor:
        """The core's next state (N, hidden) after a glimpse of what the sensor reads."""
        what = F.relu(self.what(self.sensor(x, location)))
        where = F.relu(self.where(location))
        glimpse = F.relu(self.glimpse_what(what) + self.glimpse_where(where))
        return F.relu(self.core_state(state) + self.core_glimpse(glimpse))

    def walk(self, x: Tensor, path: Tensor | None = None) -> Walk:
        """As `Glimpsing.walk`; under policy `random` the network's own path is given by the image's pixels."""
        states, locations = self._walk(x, path)
        return Walk(self.action(states), locations)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) after the last glimpse of the network's own walk."""
        logits: Tensor = self.action(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """The core's last state (N, hidden)."""
        return self._walk(x)[0][:, -1]

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """None: it has no maps of features."""
        return {}

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """A tent over the finest patch of each glimpse, (N, S, S)."""
        if query is not None:
            raise ModelError("ram has no global vector that another image could give; leave the query out")
        locations = self._walk(x)[1]
        maps = tent(locations, self.options.glimpse, self.image_size)
        return {level: maps[:, number] for number, level in enumerate(self.attention_levels)}

    def loss_and_logits(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The hybrid loss of section 3.1 over drawn walks, and the logits of each image's first walk."""
        options = self.options
        count = len(x)
        x, targets = (each.repeat(options.samples, *[1] * (each.ndim - 1)) for each in (x, targets))
        self.check_input(x)
        looked_at = seen(x, self.options.channels)
        uniform = torch.rand(len(x), self.glimpses, 2, device=x.device) * 2 - 1
        location = uniform[:, 0] if options.start == "uniform" else torch.zeros_like(uniform[:, 0])
        state = x.new_zeros(len(x), self.feature_dim)
        states, densities = [], []
        for number in range(self.glimpses):
            if number and self.chooses:  # T - 1 draws: the first location is given
                mean = self._mean(state if options.policy_gradient == "core" else state.detach())
                location = (mean + self._std * torch.randn_like(mean)).detach()
                densities.append(gaussian_log_density(location, mean, self._std))
            elif number:
                location = uniform[:, number]
            state = self.step(looked_at, location, state)
            states.append(state)
        logits = [self.action(each) for each in (states if options.supervise == "every" else states[-1:])]
        loss = torch.stack([F.cross_entropy(each, targets) for each in logits]).mean()
        if options.policy == "learned":
            rewards = self._rewards(states, targets)
            baseline, error = self._baseline(states, rewards)
            loss = loss + error
            if densities:
                loss = loss + options.policy_weight * score_loss(torch.stack(densities, 1), rewards - baseline)
        return loss, logits[-1][:count]

    @torch.no_grad()
    def _rewards(self, states: list[Tensor], targets: Tensor) -> Tensor:
        """(N, T - 1), of the locations after the first."""
        if self.options.credit == "next":
            after = [F.cross_entropy(self.action(each), targets, reduction="none") for each in states[1:]]
            return -torch.stack(after, 1)
        right = self.action(states[-1]).argmax(1) == targets
        return right.to(states[-1].dtype)[:, None].expand(-1, len(states) - 1)

    def _baseline(self, states: list[Tensor], rewards: Tensor) -> tuple[Tensor, Tensor]:
        """What is expected of `rewards` before each location is drawn, and the loss that teaches it."""
        if self.options.baseline == "learned":
            expected = torch.cat([self.baseline(each.detach()) for each in states[:-1]], 1)
            return expected, F.mse_loss(expected, rewards)
        by_sample = rewards.reshape(self.options.samples, -1, rewards.shape[1])
        return leave_one_out(by_sample).reshape(rewards.shape), rewards.new_zeros(())

    def _mean(self, state: Tensor) -> Tensor:
        return torch.tanh(self.location(state))

    def _walk(self, x: Tensor, path: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The core's states (N, T, hidden) and the locations (N, T, 2)."""
        self.check_input(x)
        looked_at = seen(x, self.options.channels)
        if path is None:
            start = self._pixel_hash(x) if self.options.start == "uniform" else x.new_zeros(len(x), 2)
        state = x.new_zeros(len(x), self.feature_dim)
        states, locations = [], []
        for number in range(self.glimpses):
            if path is not None:
                location = path[:, number].to(x.dtype)
            elif number == 0:
                location = start
            elif self.options.policy == "random":
                location = self._pixel_hash(x, number)
            else:
                location = self._mean(state)
            location = location.detach()  # classes teach nothing to the place of a glimpse
            state = self.step(looked_at, location, state)
            states.append(state)
            locations.append(location)
        return torch.stack(states, 1), torch.stack(locations, 1)

    def _pixel_hash(self, x: Tensor, number: int = 0) -> Tensor:
        """Locations (N, 2), uniform over images, that depend on an image's own pixels and on nothing else.

        Evaluation draws nothing, and its results must not depend on the order or the batches of the images. Whole
        numbers make the sum exact.
        """
        generator = torch.Generator().manual_seed(0)
        factors = torch.randint(1 << 20, (2, *x.shape[1:]), generator=generator, device="cpu").to(x.device)
        levels = (x.detach() * 4096).round().clamp(-(2.0**30), 2.0**30).long()
        mixed = (levels[:, None] * factors).sum((2, 3, 4))
        scrambled = (mixed + number * 0x9E3779B1) * 0x5851F42D4C957F2D  # wraps; the upper bits are well mixed
        return (((scrambled >> 33) & 0xFFFFFF).to(torch.float64) / 2**23 - 1).to(x.dtype)


def build_ram(options: Options, num_classes: int, image_size: int) -> Ram:
    """A network of these options."""
    model = Ram(options, num_classes, image_size)
    model.reset_parameters()
    return model
