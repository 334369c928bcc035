"""What captions of scenes are worth, and whether the map of a word lies on what the word names."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from ltpa.core.checks import Check, mean
from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError, DataError
from ltpa.core.records import Metric, Record
from ltpa.core.schema import ListOf, once_each
from ltpa.core.seeds import derive
from ltpa.protocols.base import BatchSize, Context, Measurement, MetricKind, Protocol, Scene, Settings, Target

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ltpa.data.arrays import PreparedDataset, Split
    from ltpa.models.base import AttentionClassifier
    from ltpa.models.captioner import Caption, Captioner, Told

_READ = "way of decoding"
_WORD = "kind of word and object"
_STANDARD_ERRORS = 3  # by which attention must be beyond chance


class CaptionSettings(Settings):
    """How captions are decoded and judged.

    Attributes:
        beams: widths of the beams besides greedy decoding.
        brevity: whether BLEU has its brevity penalty; Xu et al. 2015 have none.
        controls: by variant the one without attention that it must beat.
        batch_size: images per pass.
    """

    not_of_job = frozenset({"controls"})
    no_reading = frozenset({"beams", "controls", "batch_size"})

    beams: Annotated[ListOf[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=20), AfterValidator(once_each)] = (
        3,
    )
    brevity: bool = False
    controls: dict[str, str] = {}
    batch_size: BatchSize = 500


class Captions(Protocol):
    """Captions as they are said (exact matches, slots, BLEU), and maps under the true caption, word by word."""

    name = "captions"
    title = "Captions and the maps of their words"
    about = "captions of scenes, and attention word by word"
    section = "Xu et al. 2015, section 5"
    Settings = CaptionSettings
    learning = ("captions",)
    metrics = (
        MetricKind("exact_match_pct", "captions that are right word by word", "%", "higher", _READ, of_labels=True),
        MetricKind("slot_accuracy_pct", "slots filled rightly, greedy", "%", "higher", "slot", of_labels=True),
        MetricKind("chance_slot_accuracy_pct", "slots that guessing fills rightly", "%", "", "slot"),
        MetricKind("bleu1", "BLEU-1", "", "higher", _READ, of_labels=True),
        MetricKind("bleu2", "BLEU-2", "", "higher", _READ, of_labels=True),
        MetricKind("bleu3", "BLEU-3", "", "higher", _READ, of_labels=True),
        MetricKind("bleu4", "BLEU-4", "", "higher", _READ, of_labels=True),
        MetricKind("end_missing_pct", "captions without an end", "%", "lower", _READ),
        MetricKind("nats_per_word", "-log p of the true words", "nats", "lower", of_labels=True),
        MetricKind("right_object_pct", "words whose map prefers their object", "%", "higher", _WORD, of_labels=True),
        MetricKind("pointing_in_box_pct", "maps with their peak in the object's box", "%", "higher", _WORD, True),
        MetricKind("pointing_in_other_box_pct", "maps with their peak in the other box", "%", "lower", _WORD, True),
        MetricKind("box_chance_pct", "cells in the box", "%", "", _WORD),
        MetricKind("mass_in_box_pct", "share of the map in the object's box", "%", "higher", _WORD, of_labels=True),
        MetricKind("other_image_pointing_pct", "peaks in another image's box", "%", "", _WORD),
        MetricKind("exchanged_right_object_pct", "the same, right also after an exchange", "%", "higher", _WORD),
        MetricKind("blanked_own_pct", "digit words that miss their own digit more", "%", "higher", of_labels=True),
        MetricKind("blanked_drop_nats", "log p that a digit word loses", "nats", "", "digit painted over"),
        MetricKind("map_entropy_bits", "entropy of the maps", "", ""),
        MetricKind("penalty", "penalty of the maps", "", ""),
        MetricKind("gate_mean", "mean gate", "", "", "kind of word"),
    )
    per_image = True
    about_checks = (
        "attention helps: exact matches of a network with attention over those of its control without.",
        "words find their object: maps on the word's own object more often than on the other one.",
    )

    def check_names(self, scene: Scene, settings: CaptionSettings) -> None:
        """Refuse controls that no job measures."""
        measured = [name for name in scene.trained_variants if scene.network(name).learning in self.learning]
        for name in (*settings.controls, *settings.controls.values()):
            if name not in measured:
                key = "key 'protocols.captions.controls'"
                raise ConfigError(f"{key}: {unknown_name('captioner', name, measured)}")

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Captioned sets alone, and networks that were tested on their test scenes."""
        if dataset not in scene.using("captions"):
            return "not a captioned set"
        split = scene.training(dataset, variant).split
        return "" if split == "test" else f"its training is judged on {split} scenes, for choices"

    def folder_target(self, name: str, class_ids: list[int] | None) -> Target:
        """None: a folder of images has no captions."""
        raise ConfigError(
            f"{self.name}: reads true captions, which a folder of images does not have; prepare it as a dataset"
        )

    def check_facts(self, scene: Scene) -> dict[str, Any]:
        """Which network must beat what."""
        return {"controls": dict(scene.settings(self.name).controls)}

    def checks(
        self, facts: Mapping[str, Any], subject: str, records: Sequence[Record], others: Mapping[str, list[Record]]
    ) -> Iterator[Check]:
        """Where it is asked for: exact matches over the control's; and maps over chance, of every network with maps."""
        control = facts["controls"].get(records[0].variant)
        if control is not None:
            yield _beats_control(subject, records, control, others.get(control, []))
        found = [m for r in records for m in r.metrics if m.name == "right_object_pct" and m.condition == "all"]
        if found:
            share, least = min((m.value, 50 + _STANDARD_ERRORS * 50 / (m.n / 6) ** 0.5) for m in found)
            detail = f"least of {len(found)} seeds; {_STANDARD_ERRORS} standard errors over the scenes beyond chance"
            yield Check("words find their object", subject, share, f"> {least:.1f} %", share > least, detail)

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: CaptionSettings,
        context: Context,
    ) -> Measurement:
        """Decode in every way, judge the captions, and then the maps under the true ones."""
        from ltpa.models.captioner import Captioner

        assert isinstance(model, Captioner)
        (dataset,) = datasets
        test = dataset.split("test")
        if "captions" not in test.more:
            raise DataError(f"dataset {dataset.name}: its images have no captions; measure captioners on others")
        work = _Work(model, dataset, settings, context.seed)
        metrics, hits = work.said()
        metrics += work.under_the_truth()
        return Measurement(metrics, {"words": dataset.classes}, hits)


class _Work:
    """The measurement of one network on one dataset."""

    def __init__(self, model: "Captioner", dataset: "PreparedDataset", settings: CaptionSettings, seed: int) -> None:
        import numpy as np

        self.model, self.dataset, self.settings, self.seed = model, dataset, settings, seed
        self.test: Split = dataset.split("test")
        self.more = {name: np.asarray(array) for name, array in self.test.more.items()}
        self.name, self.count = dataset.name, len(self.test)
        self.cells = self._cells(self.test.images)

    def metric(
        self, name: str, values: "np.ndarray | Sequence[float]", condition: str = "", scale: float = 100
    ) -> Metric:
        """The mean of values, in percent."""
        import numpy as np

        return Metric(name, scale * float(np.mean(values)), len(values), self.name, condition)

    def _cells(self, images: "np.ndarray") -> "Tensor":
        """Cells (N, L, D) of uint8 images (N, S, S, 3)."""
        import numpy as np
        import torch

        device = next(self.model.parameters()).device
        parts = []
        with torch.no_grad():
            for start in range(0, len(images), self.settings.batch_size):
                block = torch.from_numpy(np.array(images[start : start + self.settings.batch_size])).to(device)
                parts.append(self.model.cells(self.model.preprocessing(block.permute(0, 3, 1, 2).float())))
        return torch.cat(parts)

    def _in_parts(self, decode: Any, *arrays: "Tensor") -> "list[Any]":
        """What `decode` gives for the parts of arrays with a row per scene."""
        return [decode(*parts) for parts in zip(*(a.split(self.settings.batch_size) for a in arrays), strict=True)]

    def _decode(self, way: str) -> "tuple[np.ndarray, np.ndarray]":
        """Captions (N, T) and whether they ended (N,), decoded as a condition says."""
        import torch

        from ltpa.models.captioner import greedy
        from ltpa.models.decoding import beam

        draws = torch.rand(
            (self.count, self.model.options.length),
            generator=torch.Generator().manual_seed(derive(self.seed, "captions", "sample")),
        ).to(self.cells.device)
        if way == "greedy sample":
            found = self._in_parts(lambda cells, drawn: greedy(self.model, cells, draws=drawn), self.cells, draws)
        elif way.startswith("beam-"):
            width = int(way.removeprefix("beam-"))
            found = self._in_parts(lambda cells: beam(self.model, cells, width), self.cells)
        else:
            how = "argmax" if way == "greedy argmax" else "expectation"
            found = self._in_parts(lambda cells: greedy(self.model, cells, how), self.cells)
        captions: list[Caption] = found
        return (
            torch.cat([part.words for part in captions]).cpu().numpy(),
            torch.cat([part.ended for part in captions]).cpu().numpy(),
        )

    def said(self) -> "tuple[list[Metric], dict[tuple[str, str], np.ndarray]]":
        """What the captions are worth, by way of decoding; and which are right."""
        import numpy as np

        from ltpa.data import grammar
        from ltpa.evaluation.captions import SLOTS, bleu, slots_right, without_end

        true = self.more["captions"].astype(np.int64)
        wanted = [grammar.decode(row, self.dataset.classes) for row in true]
        learned = {tuple(row) for row in np.asarray(self.dataset.split("train").more["captions"]).tolist()}
        seen = np.array([tuple(row) in learned for row in true.tolist()])
        ways = ["greedy", *(f"beam-{width}" for width in self.settings.beams)]
        if self.model.attention_levels:
            ways += ["greedy argmax", "greedy sample"]
        metrics: list[Metric] = []
        hits = {}
        for way in ways:
            words, ended = self._decode(way)
            right = (words[:, : true.shape[1]] == true).all(1) & (words[:, true.shape[1] :] < 0).all(1)
            hits["exact_match_pct", way] = right
            metrics += [self.metric("exact_match_pct", right, way), self.metric("end_missing_pct", ~ended, way)]
            texts = [grammar.decode(row, self.dataset.classes) for row in words]
            pair = [without_end(text) for text in texts], [[without_end(text)] for text in wanted]
            for order in (1, 2, 3, 4):
                value = bleu(*pair, order, self.settings.brevity)
                metrics.append(Metric(f"bleu{order}", value, self.count, self.name, way))
            if way != "greedy":
                continue
            for condition, chosen in (("greedy, caption seen", seen), ("greedy, caption unseen", ~seen)):
                if chosen.any():
                    metrics.append(self.metric("exact_match_pct", right[chosen], condition))
            slots = [slots_right(text, other) for text, other in zip(texts, wanted, strict=True)]
            chance = {"size": 50.0, "tone": 50.0, "digit": 10.0, "relation": 50.0}
            for slot in SLOTS:
                flat = [value for each in slots for value in each[slot]]
                metrics.append(self.metric("slot_accuracy_pct", flat, slot))
                metrics.append(Metric("chance_slot_accuracy_pct", chance[slot], len(flat), self.name, slot))
            for index, which in enumerate(("first", "second")):
                metrics.append(
                    self.metric("slot_accuracy_pct", [each["digit"][index] for each in slots], f"digit {which}")
                )
        return metrics, hits

    def _tell(self, cells: "Tensor", captions: "np.ndarray") -> "Told":
        """Captions (N, T) read word by word, without gradients."""
        import numpy as np
        import torch

        from ltpa.models.captioner import Told

        with torch.no_grad():
            rows = torch.from_numpy(captions.astype(np.int64)).to(cells.device)
            parts: list[Told] = self._in_parts(
                lambda part, words: self.model.tell(part, words, "expectation"), cells, rows
            )
        keys = [field.name for field in dataclasses.fields(Told)]
        return Told(*(_joined([getattr(part, key) for part in parts]) for key in keys))

    def under_the_truth(self) -> list[Metric]:
        """What is measured with the true caption fed word by word: likelihood, blanked digits, maps, gates."""
        import numpy as np
        import torch

        from ltpa.data import grammar
        from ltpa.evaluation.captions import WordMaps
        from ltpa.models.captioner import penalty, word_log_p

        captions = self.more["captions"]
        rows = torch.from_numpy(captions.astype(np.int64)).to(self.cells.device)
        told = self._tell(self.cells, captions)
        log_p = word_log_p(told.log_p, rows).cpu().numpy()
        kinds = np.array([grammar.kind(word) for word in grammar.WORDS])[np.maximum(captions, 0)]
        kinds[captions < 0] = ""
        metrics = [Metric("nats_per_word", -float(log_p.sum() / (captions >= 0).sum()), self.count, self.name)]
        metrics += self._blanked(log_p, kinds == "digit")
        if told.gates is not None:
            gates = told.gates.cpu().numpy()
            for kind in ("article", *grammar.CONTENT, "relation", "end"):
                metrics.append(self.metric("gate_mean", gates[kinds == kind], kind, scale=1))
        if told.maps is None:
            return metrics
        size = self.test.images.shape[1]
        place = (self.model.side, size)
        maps = WordMaps(told.maps.cpu().numpy(), captions, self.more["referents"], self.more["objects"], *place)
        swapped_captions = exchanged(captions)
        swapped = WordMaps(
            _needed(self._tell(self._cells(self.more["exchanged"]), swapped_captions).maps).cpu().numpy(),
            swapped_captions,
            self.more["referents"],
            self.more["exchanged_objects"][:, ::-1],
            *place,
        )
        values = {
            "right_object_pct": maps.right(),
            "pointing_in_box_pct": maps.pointing(),
            "pointing_in_other_box_pct": maps.pointing(other=True),
            "box_chance_pct": maps.chance(),
            "mass_in_box_pct": maps.mass(),
            "other_image_pointing_pct": maps.pointing(shift=1),
            # Three words of each object; those of the first are those of the second after the exchange.
            "exchanged_right_object_pct": (maps.right() == 1)
            & (swapped.right() == 1).reshape(-1, 2, len(grammar.CONTENT))[:, ::-1].ravel(),
        }
        for name, found in values.items():
            metrics.append(self.metric(name, found, "all"))
            for kind in grammar.CONTENT:
                for index, which in enumerate(("first", "second")):
                    chosen = (maps.kind == kind) & (maps.object == index)
                    metrics.append(self.metric(name, found[chosen], f"{kind} {which}"))
        metrics.append(self.metric("map_entropy_bits", maps.entropy_bits(), scale=1))
        metrics.append(Metric("penalty", float(penalty(told.maps, rows)), self.count, self.name))
        return metrics

    def _blanked(self, log_p: "np.ndarray", nouns: "np.ndarray") -> list[Metric]:
        """What the digit words lose when a digit is painted over with the ground: the own one, and the other one."""
        import numpy as np
        import torch

        from ltpa.models.captioner import word_log_p

        captions = self.more["captions"]
        rows = torch.from_numpy(captions.astype(np.int64)).to(self.cells.device)
        whole = log_p[nouns].reshape(-1, 2)
        lost = []
        for gone in (0, 1):
            told = self._tell(self._cells(self.more["blanked"][:, gone]), captions)
            lost.append(whole - word_log_p(told.log_p, rows).cpu().numpy()[nouns].reshape(-1, 2))
        own = np.stack([lost[0][:, 0], lost[1][:, 1]], axis=1).ravel()
        other = np.stack([lost[1][:, 0], lost[0][:, 1]], axis=1).ravel()
        return [
            self.metric("blanked_own_pct", own > other),
            self.metric("blanked_drop_nats", own, "own", scale=1),
            self.metric("blanked_drop_nats", other, "other", scale=1),
        ]


def exchanged(captions: "np.ndarray") -> "np.ndarray":
    """The captions (N, T) of scenes whose two objects stand in each other's place."""
    from ltpa.data import grammar

    scenes = [grammar.parse(grammar.decode(row)) for row in captions]
    found = [grammar.Scene(s.second, s.relation, s.first).words() for s in scenes if s is not None]
    return grammar.encode(found, captions.shape[1])


def _joined(parts: "list[Tensor | None]") -> Any:
    import torch

    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _needed(maps: "Tensor | None") -> "Tensor":
    assert maps is not None
    return maps


def _beats_control(subject: str, group: Sequence[Record], control: str, others: Sequence[Record]) -> Check:
    """Exact matches of greedy captions against those of the network without attention, seed by seed on the mean."""
    subject = f"{subject} and {control}"
    good = [record for record in others if record.status == "ok"]
    if not good:
        return Check("attention helps", subject, None, "> 0", False, f"no result of {control}")
    own, other = (mean(records, "exact_match_pct", "greedy") for records in (group, good))
    detail = f"exact match {own:.1f} %, without attention {other:.1f} %"
    return Check("attention helps", subject, own - other, "> 0", own > other, detail)
