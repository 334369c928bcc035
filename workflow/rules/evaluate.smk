# Evaluation: one job per protocol, dataset, variant and block of seeds; each covers all targets, folds and epsilons.


for stage in EVALUATIONS:
    for block in PLAN.blocks(stage):

        rule:
            name:
                f"{stage}_seeds_{seeds_name(block)}"
            input:
                models=[
                    f"{RESULTS}/train/{{dataset}}/{{variant}}/seed-{seed}/{name}"
                    for seed in block
                    for name in (layout.MODEL, layout.RECORD)
                ],
                companions=lambda wildcards, stage=stage, block=block: PLAN.companion_files(
                    stage, wildcards.dataset, wildcards.variant, block
                ),
                manifests=lambda wildcards, stage=stage: PLAN.evaluation_manifests(
                    stage, wildcards.dataset
                ),
                code=code(stage),
            output:
                [
                    f"{RESULTS}/{stage}/{{dataset}}/{{variant}}/seed-{seed}/{layout.RECORD}"
                    for seed in block
                ],
            log:
                f"{LOGS}/{stage}/{{dataset}}/{{variant}}/seeds-{seeds_name(block)}.log",
            conda:
                "../../envs/torch.yaml"
            threads: JOBS.threads
            resources:
                gpu=JOBS.gpus,
                cpus_per_task=JOBS.threads,
                mem_mb=grown(JOBS.mem_mb),
                runtime=grown(JOBS.minutes.evaluate),
            params:
                spec=lambda wildcards, stage=stage: PLAN.evaluation_spec(
                    stage, wildcards.dataset, wildcards.variant
                ).to_json(),
                seeds=block,
                stage=stage,
            message:
                "Evaluating {wildcards.variant} trained on {wildcards.dataset}: {params.stage}, seeds {params.seeds}"
            shell:
                f"{LTPA} {{params.stage}} --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
                "--seeds {params.seeds} > {log:q} 2>&1"
