# Pictures of networks, maps and patches.

FIGURES = gallery.gallery_spec(PLAN).figures


use rule prepare as figures with:
    input:
        views.records(PLAN, views.figure_runs(PLAN)),
        views.figure_models(PLAN),
    output:
        index=f"{RESULTS}/figures/index.json",
        overlays=report(
            f"{RESULTS}/figures/attention.png",
            category="Figures",
            labels={"figure": "Attention overlays"},
            caption="../report/attention.rst",
        ),
        curves=report(
            f"{RESULTS}/figures/learning-curves.png",
            category="Figures",
            labels={"figure": "Learning curves"},
            caption="../report/curves.rst",
        ),
        attacks=report(
            f"{RESULTS}/figures/fooling-rate.png",
            category="Figures",
            labels={"figure": "Fooling rate"},
            caption="../report/attacks.rst",
        ),
        uses=report(
            f"{RESULTS}/figures/map-use.png",
            category="Figures",
            labels={"figure": "What the maps are for"},
            caption="../report/map-use.rst",
        ),
    log:
        RULES.log("figures"),
    benchmark:
        RULES.benchmark("figures")
    threads: 1
    resources:
        **RULES.asks("view"),
    params:
        **RULES.params("figures", lambda *names: views.figures_spec(PLAN, *names)),
        command="figures",
    message:
        "Drawing attention overlays and curves"


use rule figures as gallery with:
    input:
        gallery.gallery_inputs(PLAN),
    output:
        index=f"{RESULTS}/figures/paper/index.json",
        pictures=report(
            [f"{RESULTS}/figures/paper/{name}.png" for name in FIGURES],
            category="Figures",
            labels={"figure": "Figures of the paper"},
            caption="../report/gallery.rst",
        ),
        print=[
            f"{RESULTS}/figures/paper/{name}.{suffix}"
            for name in FIGURES
            for suffix in ("svg", "pdf")
        ],
    log:
        RULES.log("gallery"),
    benchmark:
        RULES.benchmark("gallery")
    params:
        **RULES.params("gallery", lambda *names: gallery.gallery_spec(PLAN, *names)),
        command="gallery",
    message:
        "Drawing the figures of images and maps"


use rule figures as patch_picture with:
    input:
        f"{RESULTS}/patches/{{dataset}}/{{variant}}/seed-{{seed}}/{layout.BOXES}",
        f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
    output:
        str(layout.boxes_picture_path(PLAN.results, "{dataset}", "{variant}", "{seed}")),
    log:
        RULES.log("patch_picture", "{dataset}", "{variant}", "seed-{seed}"),
    benchmark:
        RULES.benchmark("patch_picture", "{dataset}", "{variant}", "seed-{seed}")
    wildcard_constraints:
        variant=RULES.networks("patches"),
    params:
        **RULES.params(
            "patch_picture",
            PLAN.patch_spec,
            "dataset",
            "variant",
            module="patch_pictures",
        ),
        command="patches --show 6 --seed {seed}",
    message:
        "Drawing the patches of {wildcards.variant} on {wildcards.dataset}"


use rule figures as step_picture with:
    input:
        lambda wildcards: jobs.inputs(PLAN, "train", **wildcards),
        f"{RESULTS}/train/{{dataset}}/{{variant}}/seed-{{seed}}/{layout.MODEL}",
    output:
        str(layout.steps_picture_path(PLAN.results, "{dataset}", "{variant}", "{seed}")),
    log:
        RULES.log("step_picture", "{dataset}", "{variant}", "seed-{seed}"),
    benchmark:
        RULES.benchmark("step_picture", "{dataset}", "{variant}", "seed-{seed}")
    wildcard_constraints:
        variant=RULES.networks("train"),
    params:
        **RULES.params(
            "step_picture",
            PLAN.train_spec,
            "dataset",
            "variant",
            module="step_pictures",
        ),
        command="steps --seed {seed}",
    message:
        "Drawing the steps of {wildcards.variant} on {wildcards.dataset}"


rule all_figures:
    input:
        views.figure_files(PLAN),
        f"{RESULTS}/figures/paper/index.json",
        views.patch_pictures(PLAN),
        views.step_pictures(PLAN),
