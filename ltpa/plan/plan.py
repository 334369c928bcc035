"""The plan of a configuration: everything the DAG and the command line ask."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from ltpa.core import layout
from ltpa.core.declared import load_declaration, unknown_name
from ltpa.core.errors import ConfigError, ModelError
from ltpa.core.patches import PatchSource
from ltpa.core.registry import trust
from ltpa.core.specs import PatchSpec, PrepareSpec, ProtocolSpec, TrainSpec
from ltpa.data.registry import MAKERS
from ltpa.data.registry import code_of as reader_code
from ltpa.models.options import NetworkOptions
from ltpa.models.registry import code_of as network_code
from ltpa.models.registry import family, parse_options
from ltpa.models.variants import (
    SOURCE,
    check_architectures,
    check_named,
    chosen_saliency,
    declared_variants,
    read_variants,
    resolve_architecture,
)
from ltpa.plan.config import Config
from ltpa.plan.names import Declared, check_names, check_options
from ltpa.plan.patches import check_patch_limits, patch_source
from ltpa.plan.schema import DatasetEntry, check_entries
from ltpa.protocols.base import Target
from ltpa.protocols.registry import built_in, find, module_name
from ltpa.training.recipe import Routine, read_recipe

# Keys of a dataset that do not touch its arrays.
DESCRIPTIVE = frozenset(
    (
        "title",
        "type",
        "resolution",
        "licence",
        "citation",
        "tasks",
        "networks",
        "plays",
        "use",
        "contaminated",
        "located",
    )
)


class Run(NamedTuple):
    """One stage on the networks of one variant trained on one dataset."""

    stage: str
    dataset: str
    variant: str


class Plan:
    """What a configuration means in jobs.

    Args:
        config: a checked configuration.
        source: its name in errors.
        root: folder that holds `results/`.

    Raises:
        ConfigError: a name that is not declared, two datasets for one role, or what no network or recipe can do.
    """

    def __init__(self, config: Config, source: str = "config", root: Path = Path()) -> None:
        self.config = config
        self.source = source
        self.results = Path(root) / "results" / config.scale.name
        own = self._own_declarations()
        self.variants = {**declared_variants(), **own["variants"]}
        self.datasets = {**load_declaration("datasets"), **own["datasets"]}
        self.recipes = {**load_declaration("recipes"), **own["recipes"]}
        self.profiles = load_declaration("profiles")
        self.patch_sources = load_declaration("patches")
        self.tables = {**load_declaration("tables"), **own["tables"]}
        check_architectures(declared_variants(), SOURCE)
        check_architectures(own["variants"], f"{source}: key 'own.variants'")
        check_entries(load_declaration("datasets"), DatasetEntry, "config/datasets")
        check_entries(own["datasets"], DatasetEntry, f"{source}: key 'own.datasets'")
        declared = Declared(self.variants, self.datasets, self.recipes, self.patch_sources, self.tables)
        check_names(config, declared, source)
        for dataset in config.data:
            check_options(dataset, self.prepare_spec(dataset).source, source)
        self.roles = self._roles()
        files = {name: getattr(self.settings(name), "module", "") for name in type(config.protocols).model_fields}
        self.protocols = {name: find(name, file) for name, file in files.items() if file or name in built_in()}
        self.files = files
        for name in config.protocols.patches.sources:
            self.patch_source(name)
        check_patch_limits(config, self.knows, self.fine_datasets, source)
        for dataset in self.config.datasets:
            for variant in self.config.variants:
                if self.trains(dataset, variant):
                    self._check_training(dataset, variant)
        for name, protocol in self.protocols.items():
            try:
                protocol.check_names(self, self.settings(name))
            except ConfigError as error:
                raise ConfigError(f"{source}: {error}") from error

    def _own_declarations(self) -> dict[str, dict[str, Any]]:
        """What the configuration declares of its own, by kind; its files are trusted from here on."""
        kinds: dict[str, dict[str, Any]] = {
            kind: getattr(self.config.own, kind) for kind in type(self.config.own).model_fields
        }
        for kind, entries in kinds.items():
            for name in entries.keys() & load_declaration(kind).keys():
                raise ConfigError(
                    f"{self.source}: key 'own.{kind}.{name}': config/{kind}.yaml has one; rename this one"
                )
        where = f"{self.source}: key 'own.variants'"
        kinds["variants"] = read_variants(kinds["variants"], where, declared_variants())
        trust(variant.family for variant in kinds["variants"].values())
        trust(str(entry.get("reader")) for entry in kinds["datasets"].values())
        return kinds

    def _roles(self) -> dict[str, str]:
        roles: dict[str, str] = {}
        for name in self.config.datasets:
            role = self.datasets[name].get("plays", name)
            if role in roles:
                raise ConfigError(f"{self.source}: key 'datasets': {roles[role]} and {name} both stand for {role}")
            roles[role] = name
        return roles

    @property
    def device(self) -> str:
        """Where networks are trained and evaluated."""
        return "cuda" if self.config.jobs.gpus else "cpu"

    # --- specs -----------------------------------------------------------------------------------------------------

    def prepare_spec(self, dataset: str) -> PrepareSpec:
        """How `dataset` is prepared: what is declared of it, less what does not touch its arrays."""
        declared = {key: value for key, value in self.datasets[dataset].items() if key not in DESCRIPTIVE}
        if chosen := self.config.data.get(dataset):
            declared = {**declared, "options": {**declared.get("options", {}), **chosen}}
        code = reader_code(declared["reader"])
        return PrepareSpec(self.config.scale.name, dataset, self.config.jobs.threads, declared, code=code)

    def train_spec(self, dataset: str, variant: str) -> TrainSpec:
        """How `variant` is trained on `dataset`.

        Raises:
            ConfigError: options of the network do not go together, or it starts from a network that nothing trains.
        """
        declaration = self.datasets[dataset]
        source = self.start(dataset, variant)
        architecture, recipe = self._architecture(dataset, variant), self.recipe(dataset, variant)
        return TrainSpec(
            scale=self.config.scale.name,
            dataset=dataset,
            threads=self.config.jobs.threads,
            variant=variant,
            architecture=architecture,
            code=[*network_code(architecture), self.training(dataset, variant).job],
            num_classes=len(declaration["classes"]),
            image_size=architecture.get("image_size", declaration["image_size"]),
            recipe=recipe,
            device=self.device,
            start=None if source is None else self._start_facts(*source),
        )

    def start(self, dataset: str, variant: str) -> tuple[str, str] | None:
        """Dataset and variant of the trained network that `variant` starts from on `dataset`; None for random weights.

        Raises:
            ConfigError: the recipe names a role that no dataset fills, a variant that the configuration does not train
                there, or a chain of networks that comes back to one of its own.
        """
        found = self._started_from(dataset, variant)
        chain = [(dataset, variant)]
        while found is not None and found not in chain:
            chain.append(found)
            found = self._started_from(*found)
        if found is not None:
            texts = " from ".join(f"{name} on {on}" for on, name in [*chain, found])
            raise ConfigError(f"{self.source}: key 'recipes': {texts}: no network of these could be the first")
        return chain[1] if len(chain) > 1 else None

    def _started_from(self, dataset: str, variant: str) -> tuple[str, str] | None:
        recipe = self.recipe(dataset, variant)
        role, other = recipe.get("initialise"), str(recipe.get("initialise_from") or variant)
        if not role:
            return None
        where = (
            f"{self.source}: key 'recipes': {self._recipe_name(dataset, variant)} starts {variant} on {dataset} from "
            f"the network of {other} on {role}"
        )
        source = self.roles.get(str(role))
        if source is None:
            raise ConfigError(f"{where}, and no dataset stands for it; add one to 'datasets', or name another recipe")
        if other not in self.config.variants:
            raise ConfigError(f"{where}; add {other} to 'variants', or name another recipe")
        if not self.trains(source, other):
            raise ConfigError(f"{where}, and {other} is not trained on {source}; name another recipe")
        return source, other

    def _start_facts(self, dataset: str, variant: str) -> dict[str, str]:
        return {"dataset": dataset, "variant": variant, "training": self.train_spec(dataset, variant).hash()}

    def _architecture(self, dataset: str, variant: str) -> dict[str, Any]:
        """A profile; over it options of the variant, those that the dataset asks for, and those of the scale."""
        group = self.variants[variant].recipe
        asked = self.datasets[dataset].get("networks", {}).get(group, {})
        laid = {**asked, **self.config.scale.networks.get(group, {})}
        profile = self._profile(group, laid.pop("profile", ""))
        declared = self.variants[variant].architecture
        base = {key: value for key, value in profile.items() if key not in declared}
        try:
            architecture = resolve_architecture(self.variants[variant], **{"width": 1.0, **base, **laid})
            check_named(variant, parse_options(architecture))
            return architecture
        except ModelError as error:
            where = f"{self.source}: key 'scale.networks' (with 'networks' of dataset {dataset})"
            raise ConfigError(f"{where}: {error}") from error

    def _profile(self, group: str, name: str) -> dict[str, Any]:
        known: dict[str, dict[str, Any]] = self.profiles.get(group, {})
        if name and name not in known:
            key = f"{self.source}: key 'scale.networks.{group}.profile'"
            raise ConfigError(f"{key}: {unknown_name('profile', str(name), list(known))}")
        return known.get(name, {})

    def _recipe_name(self, dataset: str, variant: str) -> str:
        choices = self.config.recipes[self.variants[variant].recipe]
        role = self.datasets[dataset].get("plays", dataset)
        return next(choices[key] for key in (f"{variant} on {role}", variant, role, "default") if key in choices)

    def recipe(self, dataset: str, variant: str) -> dict[str, Any]:
        """Settings of the training: the recipe, over it those of the scale, and over these the variant's own.

        A network that sees no patches takes none.
        """
        declared = self.variants[variant]
        laid = self.config.scale.training.get(declared.recipe, {})
        found = {**self.recipes[self._recipe_name(dataset, variant)], **laid, **declared.training}
        if isinstance(found.get("patches"), str) and not self.network(variant).sees_patches:
            found["patches"] = ""
        return found

    def trains(self, dataset: str, variant: str) -> bool:
        """Whether a variant is meant for a dataset."""
        use = family(self.variants[variant].family).trained_on
        return not use or dataset in self.using(use)

    def training(self, dataset: str, variant: str) -> Routine:
        """The recipe of a training, read.

        Raises:
            ConfigError: a setting is not possible.
        """
        where = f"{self.source}: recipe {self._recipe_name(dataset, variant)} of {variant} on {dataset}"
        return read_recipe(self.recipe(dataset, variant), where)

    def _check_training(self, dataset: str, variant: str) -> None:
        """Raise `ConfigError` where a network cannot be trained as the configuration says."""
        group, learning = self.variants[variant].recipe, self.variants[variant].learning
        name = self._recipe_name(dataset, variant)
        if (kind := read_recipe(self.recipes[name], f"config/recipes.yaml: {name}").learning) != learning:
            raise ConfigError(
                f"{self.source}: key 'recipes.{group}': {name} is a recipe of learning {kind}, and {variant} learns by "
                f"{learning}; name a recipe of that kind"
            )
        recipe, spec = self.training(dataset, variant), self.train_spec(dataset, variant)
        key = f"{self.source}: key 'scale.training.{group}"
        if (file := recipe.weight_file) and not Path(file).is_file():
            raise ConfigError(f"{key}.weights': {file!r}: no such file; name imagenet, scratch or a file")
        if not (patches := recipe.patch_source):
            if parse_options(spec.architecture).sees_patches:
                raise ConfigError(f"{key}.patches': {variant} looks at patches; name a source of protocols.patches")
            return
        sources = self.config.protocols.patches.sources
        if patches not in sources:
            kind = "patch source of protocols.patches.sources"
            raise ConfigError(f"{key}.patches' (of {variant}): {unknown_name(kind, patches, list(sources))}")
        wanted, there = spec.recipe.get("boxes", 0), self.config.protocols.patches.boxes
        if wanted > there:
            raise ConfigError(
                f"{key}.boxes' is {wanted}, but protocols.patches.boxes is {there}; lower the one or raise the other"
            )

    def evaluation_spec(self, name: str, dataset: str, variant: str) -> ProtocolSpec:
        """How protocol `name` measures the networks of `variant` trained on `dataset`."""
        protocol, file = self.protocols[name], self.files[name]
        trained, other = self.train_spec(dataset, variant), self.companion(name, dataset, variant)
        beside = self.train_spec(dataset, other) if other else None
        networks = [each.architecture for each in (trained, beside) if each]
        code = {file or module_name(name), *(place for each in networks for place in network_code(each))}
        return ProtocolSpec(
            scale=self.config.scale.name,
            dataset=dataset,
            threads=self.config.jobs.threads,
            variant=variant,
            protocol=name,
            training=trained.hash(),
            targets=[dataclasses.asdict(target) for target in self.targets(name, dataset, variant)],
            settings=self.settings(name).of_job(),
            inputs=protocol.inputs(self, dataset, variant),
            companion={"variant": other, "training": beside.hash()} if other and beside else None,
            patches=protocol.patches(self, dataset, variant),
            companion_seeds=self.companion_seeds(name),
            file=file,
            device=self.device,
            code=sorted(code),
        )

    # --- what protocols ask (`ltpa.protocols.base.Scene`) ------------------------------------------------------------

    @property
    def trained_variants(self) -> list[str]:
        """The variants that the configuration trains."""
        return self.config.variants

    @property
    def known_variants(self) -> list[str]:
        """All variants that are declared."""
        return list(self.variants)

    def settings(self, protocol: str) -> Any:
        """The settings of a protocol."""
        return getattr(self.config.protocols, protocol)

    def declared(self, dataset: str) -> dict[str, Any]:
        """What is declared of a dataset."""
        found: dict[str, Any] = self.datasets[dataset]
        return found

    def role(self, dataset: str) -> str:
        """The dataset that this one stands for; its own name where it is no stand-in."""
        return str(self.datasets[dataset].get("plays", dataset))

    @property
    def known_roles(self) -> list[str]:
        """The roles that declared datasets can fill."""
        return list(dict.fromkeys(entry.get("plays", name) for name, entry in self.datasets.items()))

    def using(self, use: str) -> list[str]:
        """The configuration's datasets of one `use`: their own, or that of the dataset they stand for."""
        return [name for name in self.config.datasets if self.declared_of_role(name, "use") == use]

    def declared_of_role(self, dataset: str, key: str) -> Any:
        """What is declared under `key` of a dataset, or of the one that it stands for."""
        return self.datasets[dataset].get(key) or self.datasets.get(self.role(dataset), {}).get(key)

    def locates(self, dataset: str) -> bool:
        """Whether a mask or box says where the object is: not where every image is cut to its box."""
        cut = self.prepare_spec(dataset).source.get("options", {}).get("crop") == "box"
        return self.knows(dataset, "objects") and not cut

    def network(self, variant: str) -> NetworkOptions:
        """The options of a variant's network."""
        options: NetworkOptions = parse_options(self.variants[variant].architecture)
        return options

    def is_queried(self, variant: str) -> bool:
        """Whether a global vector decides on the variant's attention, which another image could give."""
        return bool(self.network(variant).query_levels)

    def saliency(self, variant: str) -> dict[str, Any] | None:
        """How the map of figure 9 is made of a variant, under the choices of `protocols.segmentation`."""
        chosen = self.settings("segmentation")
        return chosen_saliency(self.variants[variant], chosen.levels, chosen.root)

    def masking(self) -> dict[str, Any]:
        """How every map becomes binary (`ltpa.evaluation.saliency.Masking`)."""
        return self.settings("segmentation").model_dump(include={"upsampling", "threshold"})

    def patch_spec(self, dataset: str, source: str) -> PatchSpec:
        """How the boxes of a patch source come about on `dataset`; its `variant` is the source's name.

        Raises:
            ConfigError: the configuration does not use this source.
        """
        patches = self.config.protocols.patches
        if source not in patches.sources:
            names = list(patches.sources)
            raise ConfigError(
                f"{self.source}: key 'protocols.patches.sources': {unknown_name('source', source, names)}"
            )
        network = self.patch_network(source)
        trained = self.train_spec(dataset, network) if network else None
        return PatchSpec(
            scale=self.config.scale.name,
            dataset=dataset,
            threads=self.config.jobs.threads,
            variant=source,
            training=trained.hash() if trained else "",
            code=network_code(trained.architecture) if trained else [],
            source=self.patch_source(source).model_dump(mode="json"),
            settings=patches.settings(),
            device=self.device if network else "cpu",
        )

    def patch_network(self, source: str) -> str | None:
        """The variant behind a patch source, None where there is none."""
        return self.patch_source(source).network or None

    def patch_source(self, name: str) -> PatchSource:
        """A patch source that the configuration uses, as its jobs read it."""
        return patch_source(name, self.config.protocols.patches, self.patch_sources, self.variants, self.source)

    @property
    def fine_datasets(self) -> list[str]:
        """The fine-grained sets, which patches are extracted from and two-stream networks are trained on."""
        return self.using("fine")

    def knows(self, dataset: str, what: str) -> bool:
        """Whether the prepared `dataset` knows the places of the `objects` or the `parts` of its images."""
        source = self.prepare_spec(dataset).source
        if what == "objects":
            return source["reader"] in MAKERS or bool(self.datasets[dataset].get("located"))
        if source["reader"] in MAKERS:
            return bool(source["style"].get("marks"))
        return bool(source.get("options", {}).get("parts", "none") != "none")

    def inapplicable(self, protocol: str, dataset: str, variant: str) -> str:
        """Why a protocol does not measure the networks of a variant trained on a dataset; empty where it does."""
        if not self.trains(dataset, variant):
            return f"{variant} is not trained on {dataset}"
        asked = self.protocols[protocol]
        if (learning := self.variants[variant].learning) not in asked.learning:
            return f"{variant} learns by {learning}"
        return asked.inapplicable(self, dataset, variant)

    def companion(self, stage: str, dataset: str, variant: str) -> str | None:
        """The variant whose networks `stage` reads beside those of `variant`; None where it reads no other."""
        protocol = self.protocols.get(stage)
        if protocol is None or (protocol.other_seed and not self.companion_seeds(stage)):
            return None
        return protocol.companion(self, dataset, variant)

    def companion_seeds(self, stage: str) -> list[int]:
        """Two seeds where `stage` reads networks of another seed (`ltpa.core.specs.companion_seed`); else none."""
        protocol = self.protocols.get(stage)
        seeds = self.config.seeds[:2]
        return seeds if protocol and protocol.other_seed and len(seeds) == 2 else []

    def targets(self, stage: str, dataset: str, variant: str) -> list[Target]:
        """The datasets a stage evaluates on."""
        if stage not in self.protocols:
            return [Target(dataset)]
        return self.protocols[stage].targets(self, dataset, variant)

    # --- what is needed --------------------------------------------------------------------------------------------

    def records(self, run: Run, seeds: list[int] | None = None) -> list[str]:
        """Paths of a run's records, one per seed."""
        chosen = self.config.seeds if seeds is None else seeds
        return [
            str(layout.run_dir(self.results, run.stage, run.dataset, run.variant, seed) / layout.RECORD)
            for seed in chosen
        ]

    def manifest(self, dataset: str) -> str:
        """Path of a prepared dataset's manifest."""
        return str(layout.data_dir(self.results, dataset) / layout.MANIFEST)
