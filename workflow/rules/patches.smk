# Patch boxes: one job per dataset, patch source and block of seeds.


for block in PLAN.blocks("patches"):

    rule:
        name:
            f"patches_seeds_{seeds_name(block)}"
        input:
            origin=lambda wildcards, block=block: PLAN.patch_inputs(
                wildcards.dataset, wildcards.source, block
            ),
            manifest=f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
            code=code("patches"),
        output:
            [
                f"{RESULTS}/patches/{{dataset}}/{{source}}/seed-{seed}/{layout.RECORD}"
                for seed in block
            ],
        log:
            f"{LOGS}/patches/{{dataset}}/{{source}}/seeds-{seeds_name(block)}.log",
        conda:
            "../../envs/torch.yaml"
        threads: JOBS.threads
        resources:
            gpu=JOBS.gpus,
            cpus_per_task=JOBS.threads,
            mem_mb=grown(JOBS.mem_mb),
            runtime=grown(JOBS.minutes.evaluate),
        params:
            spec=lambda wildcards: PLAN.patch_spec(
                wildcards.dataset, wildcards.source
            ).to_json(),
            seeds=block,
        message:
            "Patch boxes of {wildcards.source} on {wildcards.dataset}, seeds {params.seeds}"
        shell:
            f"exec {PYTHON} -m ltpa patches --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
            "--seeds {params.seeds} > {log:q} 2>&1"
