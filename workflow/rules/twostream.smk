# The two-stream network: one training and one evaluation job per dataset, block of rows and block of seeds.

FINE_BLOCKS = [
    (dataset, rows)
    for dataset in PLAN.config.datasets
    if dataset in views.fine_datasets(PLAN)
    for rows in views.fine_blocks(PLAN, dataset)
]


def fine_files(dataset, rows, block):
    """What a training of these rows reads besides the dataset."""
    found = [PLAN.twostream.files(dataset, row, block) for row in rows]
    return list(dict.fromkeys(path for paths in found for path in paths))


def fine_artefacts(stage, dataset, rows, block, names):
    """Files of these rows and seeds."""
    return [
        f"{RESULTS}/{stage}/{dataset}/{row}/seed-{seed}/{name}"
        for row in rows
        for seed in block
        for name in names
    ]


for dataset, rows in FINE_BLOCKS:
    for block in PLAN.blocks("twostream"):
        place = f"{dataset}/{'_'.join(rows)}/seeds-{seeds_name(block)}"

        rule:
            name:
                f"twostream_{dataset}_{rows[0]}_seeds_{seeds_name(block)}".replace(
                    "-", "_"
                )
            input:
                manifest=f"{RESULTS}/data/{dataset}/{layout.MANIFEST}",
                files=fine_files(dataset, rows, block),
                code=code("twostream"),
            output:
                fine_artefacts(
                    "twostream",
                    dataset,
                    rows,
                    block,
                    (layout.MODEL, layout.HISTORY, layout.RECORD),
                ),
            log:
                f"{LOGS}/twostream/{place}.log",
            conda:
                "../../envs/torch.yaml"
            threads: JOBS.threads
            resources:
                gpu=JOBS.gpus,
                cpus_per_task=JOBS.threads,
                mem_mb=grown(JOBS.mem_mb),
                runtime=grown(JOBS.minutes.train),
            params:
                specs=[
                    PLAN.twostream.training_spec(dataset, row).to_json()
                    for row in rows
                ],
                rows=rows,
                dataset=dataset,
                seeds=block,
                tolerate="--tolerate-failure" if JOBS.tolerate_failures else "",
            message:
                "Training {params.rows} on {params.dataset}, seeds {params.seeds}"
            shell:
                f"{LTPA} twostream train --spec {{params.specs:q}} --results {shlex.quote(RESULTS)} "
                "--seeds {params.seeds} {params.tolerate} > {log:q} 2>&1"


for dataset, rows in FINE_BLOCKS:
    for block in PLAN.blocks("finegrained"):
        place = f"{dataset}/{'_'.join(rows)}/seeds-{seeds_name(block)}"

        rule:
            name:
                f"finegrained_{dataset}_{rows[0]}_seeds_{seeds_name(block)}".replace(
                    "-", "_"
                )
            input:
                models=fine_artefacts(
                    "twostream", dataset, rows, block, (layout.MODEL, layout.RECORD)
                ),
                manifest=f"{RESULTS}/data/{dataset}/{layout.MANIFEST}",
                files=fine_files(dataset, rows, block),
                code=code("finegrained"),
            output:
                fine_artefacts(
                    "finegrained", dataset, rows, block, (layout.HITS, layout.RECORD)
                ),
            log:
                f"{LOGS}/finegrained/{place}.log",
            conda:
                "../../envs/torch.yaml"
            threads: JOBS.threads
            resources:
                gpu=JOBS.gpus,
                cpus_per_task=JOBS.threads,
                mem_mb=grown(JOBS.mem_mb),
                runtime=grown(JOBS.minutes.evaluate),
            params:
                specs=[
                    PLAN.twostream.evaluation_spec(dataset, row).to_json()
                    for row in rows
                ],
                rows=rows,
                dataset=dataset,
                seeds=block,
            message:
                "Evaluating {params.rows} trained on {params.dataset}, seeds {params.seeds}"
            shell:
                f"{LTPA} twostream evaluate --spec {{params.specs:q}} --results {shlex.quote(RESULTS)} "
                "--seeds {params.seeds} > {log:q} 2>&1"
