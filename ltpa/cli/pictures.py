"""The commands for a user's own pictures: attention laid over them, one protocol run on a folder of them."""

import argparse
import json
from pathlib import Path

from ltpa.cli.options import LOOK, MEASURE, Command, add_config_option, load_plan
from ltpa.cli.output import print_text
from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError
from ltpa.protocols.base import Scene


def add_commands(command: Command) -> None:
    """Add `attend` and `evaluate`."""
    attend = command("attend", _attend, "lay a network's attention over pictures of any size", LOOK)
    attend.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="pictures, or folders of them")
    attend.add_argument("--model", type=Path, required=True, help="a trained network, model.safetensors")
    attend.add_argument("--query", type=Path, metavar="IMAGE", help="take the global vector from this picture")
    attend.add_argument("--format", nargs="+", choices=["png", "svg", "pdf"], default=["png"], help="default: png")
    attend.add_argument("--output", type=Path, default=Path("attended"), metavar="DIR", help="default: attended")

    evaluate = command("evaluate", _evaluate_folder, "run one protocol on one network and a folder of images", MEASURE)
    evaluate.add_argument("protocol", help="a protocol of the package, or of the configuration")
    evaluate.add_argument(
        "--model",
        required=True,
        metavar="FILE|MODULE:FACTORY",
        help="a trained network, model.safetensors; or a function that returns any torch.nn.Module, which is run",
    )
    evaluate.add_argument("--images", type=Path, required=True, metavar="DIR", help="a folder of images per class")
    evaluate.add_argument(
        "--masks", type=Path, metavar="DIR", help="masks, named like the images, where a protocol needs them"
    )
    evaluate.add_argument("--skip-corrupt", action="store_true", help="leave out images that cannot be decoded")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    add_config_option(evaluate)
    other = evaluate.add_argument_group("for a network that is not of this package (MODULE:FACTORY)")
    other.add_argument("--size", type=int, metavar="N", help="side of its images in pixels (default: 224)")
    other.add_argument(
        "--preprocessing", metavar="NAME|MODULE:FUNCTION", help="imagenet (default), none (0-1), or a function"
    )
    other.add_argument("--maps", metavar="MODULE:FUNCTION", help="a function that makes a map of each image")
    other.add_argument(
        "--classes", type=Path, metavar="FILE", help="the class of each logit, one a line (default: the folders)"
    )


def _attend(options: argparse.Namespace) -> None:
    from ltpa.stages.attend import attend

    for line in attend(options.images, options.model, options.output, options.query, options.format):
        print(line)


def _evaluate_folder(options: argparse.Namespace) -> None:
    from ltpa.stages.evaluate import as_markdown, evaluate_folder, own_network
    from ltpa.stages.foreign import ForeignChoices, ForeignScene, foreign_subject, is_place

    plan = load_plan(options)
    if options.protocol not in plan.protocols:
        raise ConfigError(unknown_name("protocol", options.protocol, list(plan.protocols)))
    protocol = plan.protocols[options.protocol]
    names = ("size", "preprocessing", "maps", "classes")
    chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
    scene: Scene = plan
    if is_place(options.model):
        subject = foreign_subject(options.model, ForeignChoices(**chosen))
        scene = ForeignScene({name: plan.settings(name) for name in plan.protocols})
    elif chosen:
        raise ConfigError(f"--{next(iter(chosen))} goes with --model MODULE:FACTORY; a network's file says all of this")
    else:
        subject = own_network(Path(options.model))
    record = evaluate_folder(protocol, scene, subject, options.images, options.masks, options.skip_corrupt)
    if options.json:
        print(json.dumps(record, indent=1))
    else:
        print_text(as_markdown(record))
