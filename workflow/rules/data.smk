# Datasets: from archives or the embedded corpus to verified arrays.


rule prepare:
    input:
        code=code("prepare"),
    output:
        f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
    log:
        f"{LOGS}/prepare/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/prepare/{{dataset}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: JOBS.threads
    resources:
        mem_mb=JOBS.mem_mb,
    params:
        spec=lambda wildcards: PLAN.prepare_spec(wildcards.dataset).to_json(),
    message:
        "Preparing {wildcards.dataset}"
    shell:
        f"{PYTHON} -m ltpa prepare --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
        '--archives "$LTPA_ARCHIVES" > {log:q} 2>&1'
