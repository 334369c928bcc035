# Datasets: from archives or the embedded corpus to verified arrays.


rule prepare:
    input:
        code=code("prepare"),
    output:
        f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
    log:
        f"{LOGS}/prepare/{{dataset}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: JOBS.threads
    resources:
        cpus_per_task=JOBS.threads,
        mem_mb=grown(JOBS.mem_mb),
        runtime=grown(JOBS.minutes.prepare),
    params:
        spec=lambda wildcards: PLAN.prepare_spec(wildcards.dataset).to_json(),
    message:
        "Preparing {wildcards.dataset}"
    shell:
        f"{LTPA} prepare --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
        '--archives "$LTPA_ARCHIVES" > {log:q} 2>&1'
