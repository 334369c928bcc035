# The two-stream network: one training and one evaluation job per dataset, row and block of seeds.


for block in PLAN.blocks("twostream"):

    rule:
        name:
            f"twostream_seeds_{seeds_name(block)}"
        input:
            manifest=f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
            files=lambda wildcards, block=block: PLAN.twostream.files(
                wildcards.dataset, wildcards.row, block
            ),
            code=code("twostream"),
        output:
            [
                f"{RESULTS}/twostream/{{dataset}}/{{row}}/seed-{seed}/{name}"
                for seed in block
                for name in (layout.MODEL, layout.HISTORY, layout.RECORD)
            ],
        log:
            f"{LOGS}/twostream/{{dataset}}/{{row}}/seeds-{seeds_name(block)}.log",
        conda:
            "../../envs/torch.yaml"
        threads: JOBS.threads
        resources:
            gpu=JOBS.gpus,
            cpus_per_task=JOBS.threads,
            mem_mb=grown(JOBS.mem_mb),
            runtime=grown(JOBS.minutes.train),
        params:
            spec=lambda wildcards: PLAN.twostream.training_spec(
                wildcards.dataset, wildcards.row
            ).to_json(),
            seeds=block,
            tolerate="--tolerate-failure" if JOBS.tolerate_failures else "",
        message:
            "Training {wildcards.row} on {wildcards.dataset}, seeds {params.seeds}"
        shell:
            f"exec {PYTHON} -m ltpa twostream train --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
            "--seeds {params.seeds} {params.tolerate} > {log:q} 2>&1"


for block in PLAN.blocks("finegrained"):

    rule:
        name:
            f"finegrained_seeds_{seeds_name(block)}"
        input:
            models=[
                f"{RESULTS}/twostream/{{dataset}}/{{row}}/seed-{seed}/{name}"
                for seed in block
                for name in (layout.MODEL, layout.RECORD)
            ],
            manifest=f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
            files=lambda wildcards, block=block: PLAN.twostream.files(
                wildcards.dataset, wildcards.row, block
            ),
            code=code("finegrained"),
        output:
            [
                f"{RESULTS}/finegrained/{{dataset}}/{{row}}/seed-{seed}/{layout.RECORD}"
                for seed in block
            ],
        log:
            f"{LOGS}/finegrained/{{dataset}}/{{row}}/seeds-{seeds_name(block)}.log",
        conda:
            "../../envs/torch.yaml"
        threads: JOBS.threads
        resources:
            gpu=JOBS.gpus,
            cpus_per_task=JOBS.threads,
            mem_mb=grown(JOBS.mem_mb),
            runtime=grown(JOBS.minutes.evaluate),
        params:
            spec=lambda wildcards: PLAN.twostream.evaluation_spec(
                wildcards.dataset, wildcards.row
            ).to_json(),
            seeds=block,
        message:
            "Evaluating {wildcards.row} trained on {wildcards.dataset}, seeds {params.seeds}"
        shell:
            f"exec {PYTHON} -m ltpa twostream evaluate --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
            "--seeds {params.seeds} > {log:q} 2>&1"
