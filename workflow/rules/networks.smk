# Networks: for each stage one job per dataset, network and seed. An evaluation covers all targets, folds and epsilons.


for stage in jobs.stages(PLAN).values():

    rule:
        name:
            stage.name
        input:
            lambda wildcards, stage=stage.name: jobs.inputs(PLAN, stage, **wildcards),
        output:
            [
                f"{RESULTS}/{stage.name}/{{dataset}}/{{variant}}/seed-{{seed}}/{name}"
                for name in jobs.outputs(PLAN, stage.name)
            ],
        log:
            RULES.log(stage.name, "{dataset}", "{variant}", "seed-{seed}"),
        benchmark:
            RULES.benchmark(stage.name, "{dataset}", "{variant}", "seed-{seed}")
        wildcard_constraints:
            variant=RULES.networks(stage.name),
        conda:
            "../../envs/torch.yaml"
        threads: JOBS.threads
        resources:
            **RULES.asks("train" if stage.trains else "evaluate", network=True),
        params:
            **RULES.params(
                stage.name,
                lambda *names, stage=stage.name: jobs.spec(PLAN, stage, *names),
                "dataset",
                "variant",
                module=stage.module,
            ),
            command=f"{stage.command} --seed {{seed}}{jobs.flags(PLAN, stage)}",
        message:
            f"{stage.doing} {{wildcards.variant}} on {{wildcards.dataset}}, seed {{wildcards.seed}}"
        shell:
            RULES.shell
