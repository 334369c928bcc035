# Patch boxes: one job per dataset, block of patch sources and block of seeds.

# Where the training behind a source may fail and be tolerated, there may be no boxes.
PATCH_FILES = [layout.RECORD]
if not JOBS.tolerate_failures:
    PATCH_FILES += [layout.BOXES, layout.BOXES_SIDECAR]


def patch_specs(dataset, sources):
    """Specs of patch sources, for the command line."""
    return [PLAN.patch_spec(dataset, source).to_json() for source in sources]


for sources in views.patch_blocks(PLAN):
    for block in PLAN.blocks("patches"):

        rule:
            name:
                f"patches_{'_'.join(sources)}_seeds_{seeds_name(block)}".replace(
                    "-", "_"
                )
            input:
                origin=lambda wildcards, sources=sources, block=block: [
                    path
                    for source in sources
                    for path in PLAN.patch_inputs(wildcards.dataset, source, block)
                ],
                manifest=f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
                code=code("patches"),
            output:
                [
                    f"{RESULTS}/patches/{{dataset}}/{source}/seed-{seed}/{name}"
                    for source in sources
                    for seed in block
                    for name in PATCH_FILES
                ],
            log:
                f"{LOGS}/patches/{{dataset}}/{'_'.join(sources)}/seeds-{seeds_name(block)}.log",
            conda:
                "../../envs/torch.yaml"
            threads: JOBS.threads
            resources:
                gpu=JOBS.gpus,
                cpus_per_task=JOBS.threads,
                mem_mb=grown(JOBS.mem_mb),
                runtime=grown(JOBS.minutes.evaluate),
            params:
                specs=lambda wildcards, sources=sources: patch_specs(
                    wildcards.dataset, sources
                ),
                sources=sources,
                seeds=block,
            message:
                "Patch boxes of {params.sources} on {wildcards.dataset}, seeds {params.seeds}"
            shell:
                f"{LTPA} patches --spec {{params.specs:q}} --results {shlex.quote(RESULTS)} "
                "--seeds {params.seeds} > {log:q} 2>&1"
