"""Preprocessing fitted on a dataset; what is expensive to fit is kept and shared by all networks."""

import json
import logging
from pathlib import Path

from safetensors.torch import save

from ltpa.core import layout
from ltpa.core.code import code_hash
from ltpa.core.errors import ModelError
from ltpa.core.files import write_bytes, write_text
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.provenance import processor
from ltpa.data.arrays import PreparedDataset
from ltpa.data.normalise import Normaliser, build_normaliser, fit_normaliser
from ltpa.models.tensorfile import TensorFile
from ltpa.runtime.lock import exclusive_folder
from ltpa.training.journal import ABOUT, read_about

STAGE = "preprocessing"  # its folder below `state/`
KEPT_SCHEMES = ("gcn-zca",)

_LOG = logging.getLogger(__name__)


def fitted_normaliser(results: Path, dataset: PreparedDataset, scheme: str) -> Normaliser:
    """The preprocessing `scheme` with statistics of the dataset's training images.

    Schemes of `KEPT_SCHEMES` are fitted once per dataset, code and kind of processor, kept below `state/` with their
    SHA-256, and fitted anew when the file is damaged. While another process fits the same, this one waits.
    """
    if scheme not in KEPT_SCHEMES:
        return fit_normaliser(scheme, dataset.split("train").images)
    code = fitting_code()
    folder = layout.state_dir(results, STAGE, digest([scheme, dataset.data_hash, code, processor()]))
    path = folder / f"{scheme}.safetensors"
    seal = path.with_suffix(".sha256")
    with exclusive_folder(folder):
        about = {"dataset": dataset.name, "scheme": scheme, "data_hash": dataset.data_hash, "code_hash": code}
        about["processor"] = processor()
        if read_about(folder) != about:
            write_text(folder / ABOUT, json.dumps(about, indent=1) + "\n")
        if path.is_file() and seal.is_file():
            module = build_normaliser(scheme, dataset.image_size)
            try:
                if seal.read_text().strip() == sha256_file(path):
                    file = TensorFile(path)
                    file.check(module.state_dict())
                    module.load_state_dict({name: file.read(name) for name in file.tensors})
                    return module
                _LOG.warning("%s: damaged (its SHA-256 does not match); fitting anew", path)
            except ModelError as error:
                _LOG.warning("%s; fitting anew", error)
        module = fit_normaliser(scheme, dataset.split("train").images)
        write_bytes(path, save({name: value.contiguous() for name, value in module.state_dict().items()}))
        write_text(seal, sha256_file(path) + "\n")
        return module


def fitting_code() -> str:
    """Hash of the code that fits, part of the key of what is kept."""
    return code_hash(["ltpa.data.normalise"])
