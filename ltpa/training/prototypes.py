"""Runs the training of ProtoPNet's prototypes, resumable to the bit.

Everything random is drawn from streams named by (seed, purpose, pass, step), and the state saved mid-way holds all that
the remaining steps depend on, what a push has found so far included.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ltpa.core.errors import ConfigError, MemoryFullError, TrainingError
from ltpa.core.patches import PrototypeTraining
from ltpa.core.seeds import derive
from ltpa.models.protopnet import PrototypeNetwork
from ltpa.runtime import checkpoint
from ltpa.training.loop import EpochRow, Interrupted
from ltpa.training.memory import is_out_of_memory
from ltpa.training.protopnet import Kind, Pass, Push, distorted, losses, passes, scaled

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

_NAN = float("nan")


class PrototypeTrainer:
    """Trains prototypes over a trunk on images (N, H, W, 3) uint8 with labels (N,).

    Args:
        backbone: the network behind the trunk; it is changed.
        classes: number of classes.
        chosen, seed: what to do; with the images they fix the result's bits on one machine.
        grid, level: see `PrototypeNetwork`.
        folder: where resumable state is kept. One process at a time: hold `exclusive_folder` where others may come.
        key: what else the states in `folder` must belong to.
        should_stop: asked after each step; true saves the state and raises `Interrupted`.
        on_start: called once with the rows of the epochs that were done before, at the start of `run`.
        on_epoch: called with the row of each finished epoch; its test error is not a number.
        name: how errors call this run.

    Attributes:
        network: trunk, added convolutions, prototypes and last layer.
        history: a row for each finished epoch; the passes that follow a push have none.

    Raises:
        ConfigError: there is only one class, so that no prototype is of another.
    """

    def __init__(
        self,
        backbone: "AttentionClassifier",
        images: np.ndarray,
        labels: np.ndarray,
        classes: int,
        chosen: PrototypeTraining,
        seed: int,
        grid: int,
        level: str,
        folder: Path,
        key: str = "",
        should_stop: Callable[[], bool] = lambda: False,
        on_start: Callable[[list[EpochRow]], None] = lambda rows: None,
        on_epoch: Callable[[EpochRow], None] = lambda row: None,
        name: str = "protopnet",
    ) -> None:
        if classes < 2:
            raise ConfigError("patches: mode protopnet needs two classes or more; choose protolite")
        torch.manual_seed(derive(seed, "protopnet", "weights"))
        self.network = PrototypeNetwork(backbone, classes, chosen.per_class, chosen.width, grid, level)
        self.images, self.chosen, self.seed = images, chosen, seed
        self.device = self.network.prototypes.device
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(self.device)
        self.folder, self.key, self.name = folder, key, name
        self.should_stop, self.on_start, self.on_epoch = should_stop, on_start, on_epoch
        self.optimisers = self._optimisers()
        self.passes, self.steps_per_pass = passes(chosen), -(-len(images) // chosen.batch_size)
        self.history: list[EpochRow] = []
        self.done, self.step = 0, 0
        self.loss_sum, self.wrong, self.seconds = 0.0, 0, 0.0
        self._push: Push | None = None
        self._saved_at = self._clock = time.monotonic()

    def _optimisers(self) -> dict[Kind, torch.optim.Optimizer]:
        network, chosen = self.network, self.chosen
        trunk = {"params": network.backbone.parameters(), "lr": chosen.trunk_lr, "weight_decay": chosen.weight_decay}
        added = {"params": network.add_on.parameters(), "lr": chosen.add_on_lr, "weight_decay": chosen.weight_decay}
        prototypes = {"params": [network.prototypes], "lr": chosen.add_on_lr}
        return {
            Kind.WARM: torch.optim.Adam([dict(added), dict(prototypes)]),
            Kind.JOINT: torch.optim.Adam([trunk, added, prototypes]),
            Kind.LAST: torch.optim.Adam([{"params": network.last.parameters(), "lr": chosen.last_lr}]),
        }

    def run(self) -> PrototypeNetwork:
        """Train to the last pass, from the newest saved state where there is one; in eval mode, prototypes pushed.

        The state after the last pass is saved, so that what follows may be cut off, too.

        Raises:
            TrainingError: the loss stopped being finite.
            MemoryFullError: a batch does not fit into memory.
            Interrupted: `should_stop` said so; call again to go on.
        """
        self._restore()
        self.on_start(list(self.history))
        try:
            while self.done < len(self.passes):
                self._run_pass(self.passes[self.done])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryFullError(
                f"{self.name}: batches of {self.chosen.batch_size} do not fit into memory; lower "
                "protocols.patches.protopnet.batch_size"
            ) from error
        self._save()
        return self.network.eval()

    def _run_pass(self, current: Pass) -> None:
        self._clock = time.monotonic()
        self._enter(current)
        size = self.chosen.batch_size
        rng = np.random.default_rng(derive(self.seed, "protopnet", "order", self.done))
        order = np.arange(len(self.images)) if current.kind is Kind.PUSH else rng.permutation(len(self.images))
        while self.step < self.steps_per_pass:
            rows = order[self.step * size : (self.step + 1) * size]
            if self._push is not None:
                self._push.look(self._pixels(rows), self.labels[torch.from_numpy(rows)], int(rows[0]))
            else:
                self._learn(current.kind, rows)
            self.step += 1
            self._obey(current)
            if time.monotonic() - self._saved_at >= self.chosen.checkpoint_seconds:
                self._save()
        self._leave(current)

    def _enter(self, current: Pass) -> None:
        """Bring network and optimiser into the state that steps of this pass take for granted."""
        learns = current.kind is not Kind.PUSH
        self.network.train(learns)
        self.network.backbone.train(learns and (current.kind is Kind.JOINT or not self.chosen.freeze_norm))
        if current.kind is Kind.PUSH:
            self._push = self._push or Push(self.network)
            return
        optimiser = self.optimisers[current.kind]
        held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
        for parameter in self.network.parameters():
            parameter.requires_grad_(id(parameter) in held)
        if current.kind is Kind.JOINT:
            rates = (self.chosen.trunk_lr, self.chosen.add_on_lr, self.chosen.add_on_lr)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * self.chosen.decay(current.epoch)

    def _pixels(self, rows: np.ndarray) -> torch.Tensor:
        return scaled(self.images[rows], self.network.backbone.image_size, self.device)

    def _learn(self, kind: Kind, rows: np.ndarray) -> None:
        """One step of what the pass's optimiser holds on the images numbered `rows`."""
        stream = torch.Generator().manual_seed(derive(self.seed, "protopnet", "images", self.done, self.step))
        torch.manual_seed(derive(self.seed, "protopnet", "dropout", self.done, self.step))
        pixels = distorted(self._pixels(rows), self.chosen, stream)
        labels = self.labels[torch.from_numpy(rows)]
        logits, least = self.network(self.network.backbone.preprocessing(pixels))
        loss = losses(self.network, logits, least, labels, self.chosen)
        if not torch.isfinite(loss):
            raise TrainingError(f"{self.name}: the loss is not finite; lower the rates of protocols.patches.protopnet")
        self.optimisers[kind].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[kind].step()
        self.loss_sum += float(loss.detach()) * len(rows)
        self.wrong += int((logits.detach().argmax(dim=1) != labels).sum())

    def _obey(self, current: Pass) -> None:
        """Save and leave where that was asked for."""
        if not self.should_stop():
            return
        problem = self._save()
        raise Interrupted(
            f"{self.name}: stopped in epoch {current.epoch} ({current.kind.value}); the same command resumes it"
            + (f" from the state before ({problem})" if problem else "")
        )

    def _leave(self, current: Pass) -> None:
        self._pass_time()
        if self._push is not None:
            self._push.finish()
            self._push = None
        elif current.kind is not Kind.LAST:
            rate = self.optimisers[current.kind].param_groups[0]["lr"]
            images = len(self.images)
            loss, error = self.loss_sum / images, 100 * self.wrong / images
            row = EpochRow(current.epoch, rate, loss, error, _NAN, round(self.seconds, 3))
            self.history.append(row)
            self.on_epoch(row)
        self.done, self.step = self.done + 1, 0
        self.loss_sum, self.wrong, self.seconds = 0.0, 0, 0.0

    def _pass_time(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def _save(self) -> str:
        """Save the state where it fits; else say why not, in the log and to the caller."""
        self._saved_at = time.monotonic()
        self._pass_time()
        payload: dict[str, Any] = {
            "network": self.network.state_dict(),
            "moments": {kind.value: optimiser.state_dict()["state"] for kind, optimiser in self.optimisers.items()},
            "push": None if self._push is None else self._push.state_dict(),
            "done": self.done,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "wrong": self.wrong,
            "seconds": self.seconds,
            "history": [dataclasses.asdict(row) for row in self.history],
        }
        # A pass has one place more than steps: that after its last step, before it is left.
        place = self.done * (self.steps_per_pass + 1) + self.step
        return checkpoint.save_if_it_fits(self.folder, place, payload, self.key)

    def _restore(self) -> None:
        payload = checkpoint.load_newest(self.folder, self.key)
        if payload is None:
            return
        self.network.load_state_dict(payload["network"])
        for kind, optimiser in self.optimisers.items():
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": payload["moments"][kind.value], "param_groups": groups})
        if payload["push"] is not None:
            self._push = Push(self.network)
            self._push.load_state_dict(payload["push"])
        self.history = [EpochRow(**row) for row in payload["history"]]
        for key in ("done", "step", "loss_sum", "wrong", "seconds"):
            setattr(self, key, payload[key])
