# Training: one job per dataset, variant and block of seeds.


for block in PLAN.blocks():

    rule:
        name:
            f"train_seeds_{seeds_name(block)}"
        input:
            manifest=f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
            start=lambda wildcards, block=block: PLAN.start_files(
                wildcards.dataset, wildcards.variant, block
            ),
            code=code("train"),
        output:
            [
                f"{RESULTS}/train/{{dataset}}/{{variant}}/seed-{seed}/{name}"
                for seed in block
                for name in (
                    layout.MODEL,
                    layout.HISTORY,
                    layout.LOGITS,
                    layout.HITS,
                    layout.RECORD,
                )
            ],
        log:
            f"{LOGS}/train/{{dataset}}/{{variant}}/seeds-{seeds_name(block)}.log",
        conda:
            "../../envs/torch.yaml"
        threads: JOBS.threads
        resources:
            gpu=JOBS.gpus,
            cpus_per_task=JOBS.threads,
            mem_mb=grown(JOBS.mem_mb),
            runtime=grown(JOBS.minutes.train),
        params:
            spec=lambda wildcards: PLAN.train_spec(
                wildcards.dataset, wildcards.variant
            ).to_json(),
            seeds=block,
            tolerate="--tolerate-failure" if JOBS.tolerate_failures else "",
        message:
            "Training {wildcards.variant} on {wildcards.dataset}, seeds {params.seeds}"
        shell:
            f"{LTPA} train --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
            "--seeds {params.seeds} {params.tolerate} > {log:q} 2>&1"
