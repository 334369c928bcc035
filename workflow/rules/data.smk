# Datasets: from archives or the embedded corpus to verified arrays.


rule prepare:
    output:
        f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
    log:
        RULES.log("prepare", "{dataset}"),
    benchmark:
        RULES.benchmark("prepare", "{dataset}")
    conda:
        "../../envs/torch.yaml"
    threads: JOBS.threads
    resources:
        **RULES.asks("prepare"),
    params:
        **RULES.params("prepare", PLAN.prepare_spec, "dataset"),
        command="prepare",
    message:
        "Preparing {wildcards.dataset}"
    shell:
        RULES.shell
