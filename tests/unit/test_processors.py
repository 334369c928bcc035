"""Another kind of processor rounds otherwise: records name it, and tables say where seeds come from several."""

import dataclasses

import pytest
import tables_support as support
import torch
from tables_support import put, trained

from ltpa.core import provenance
from ltpa.core.learned import outcomes
from ltpa.core.provenance import library_versions
from ltpa.tables import frame
from ltpa.tables.build import build_table
from ltpa.tables.frame import index_records

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nflags\t\t: fpu\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\nHardware\t: x\n"


@pytest.mark.parametrize(
    ("text", "says"), [(INTEL, "GenuineIntel family 6 model 85, "), (ARM, " implementer 0x41 part 0xd40, "), (None, "")]
)
def test_what_a_record_says_of_the_processor(tmp_path, monkeypatch, text, says):
    source = tmp_path / "cpuinfo"
    if text is not None:
        source.write_text(text)
    for name in provenance.OVERRIDES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    facts = provenance._processor_facts(source)
    monkeypatch.setattr(provenance, "_processor_facts", lambda path: facts)
    said = provenance.processor.__wrapped__()
    assert says in said and said.endswith(f"{torch.backends.cpu.get_cpu_capability()}, ONEDNN_MAX_CPU_ISA=AVX2")


def test_the_libraries_that_compute_are_part_of_an_identity():
    assert library_versions().keys() >= {"torch", "numpy", "numpy-blas"}
    assert provenance.computing_libraries().keys() <= set(provenance.COMPUTING)
    if "mkldnn" in torch.__config__.show().lower() or torch.backends.mkldnn.is_available():
        assert library_versions()["oneDNN"][0].isdigit()


def test_tables_name_the_runs_whose_seeds_come_from_several_kinds(tmp_path):
    kinds = ["A, AVX512", "B, AVX2", "A, AVX512"]
    paths = [put(tmp_path, trained("digits10", "vgg", n, 7.0, processor=kind)) for n, kind in enumerate(kinds)]
    paths += [put(tmp_path, trained("svhn", "vgg", n, 4.0, processor="A, AVX512")) for n in range(3)]
    gpu = {"device": "H100", "processor": "A, AVX512"}
    spec = support.spec(seeds=[0, 1, 2])

    def notes():
        model = build_table(spec, support.declaration(), support.PUBLISHED, index_records(paths, tmp_path, spec))
        return [note for note in model.notes if "kinds of processors" in note]

    start = "Several kinds of processors, which round otherwise: train "
    assert notes() == [f"{start}digits10 vgg, seed 0, 2 on A, AVX512; seed 1 on B, AVX2"]
    put(tmp_path, dataclasses.replace(trained("svhn", "vgg", 2, 4.0), **gpu))
    assert notes()[1:] == [f"{start}svhn vgg, seed 0, 1 on A, AVX512; seed 2 on H100 (A, AVX512)"]


def test_an_evaluation_names_the_kind_that_trained_its_network():
    network = dataclasses.replace(trained("digits10", "vgg", 0, 7.0), processor="A")
    chance = dataclasses.replace(network.metrics[0], name="chance_error_pct", value=90.0)
    (outcome,) = outcomes(dataclasses.replace(network, metrics=[*network.metrics, chance]))
    evaluated = support.record("fgsm", "digits10", "vgg", 0, [], extra={"networks": [dataclasses.asdict(outcome)]})
    for kind, says in (("A", "A"), ("B", "B with networks of A"), ("", "an unknown one with networks of A")):
        assert frame._computed_on(dataclasses.replace(evaluated, processor=kind)) == says
