# Datasets: from archives or the embedded corpus to verified arrays.


rule prepare:
    input:
        code=code("prepare"),
    output:
        f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
    params:
        spec=lambda wildcards: PLAN.prepare_spec(wildcards.dataset).to_json(),
    log:
        f"{LOGS}/prepare/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/prepare/{{dataset}}.tsv"
    threads: JOBS.threads
    resources:
        mem_mb=JOBS.mem_mb,
    conda:
        "../../envs/torch.yaml"
    message:
        "Preparing {wildcards.dataset}"
    shell:
        f"{PYTHON} -m ltpa prepare --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} > {{log:q}} 2>&1"
