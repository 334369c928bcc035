# Views of the records: tables, checks, figures, the MLflow store.


rule table:
    input:
        records=lambda wildcards: views.records(
            PLAN, views.table_runs(PLAN, wildcards.table)
        ),
        manifests=lambda wildcards: views.table_manifests(PLAN, wildcards.table),
        code=code("table"),
    output:
        tidy=f"{RESULTS}/tables/{{table}}.tidy.csv",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            category="Tables",
            labels={"table": "{table}"},
            caption="../report/table.rst",
        ),
    log:
        f"{LOGS}/table/{{table}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grown(JOBS.mem_mb),
        runtime=grown(JOBS.minutes.view),
    params:
        spec=lambda wildcards: views.table_spec(PLAN, wildcards.table).to_json(),
    message:
        "Building {wildcards.table}"
    shell:
        f"{LTPA} table --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
        "--records {input.records:q} {input.manifests:q} > {log:q} 2>&1"


rule check:
    input:
        records=views.records(PLAN, views.check_runs(PLAN)),
        code=code("check"),
    output:
        json=f"{RESULTS}/checks.json",
        md=CHECKS,
    log:
        f"{LOGS}/check.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grown(JOBS.mem_mb),
        runtime=grown(JOBS.minutes.view),
    params:
        spec=views.check_spec(PLAN).to_json(),
    message:
        "Checking that networks learned and attention attends"
    shell:
        f"{LTPA} check --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
        "--records {input.records:q} > {log:q} 2>&1"


rule track:
    input:
        records=views.records(PLAN, views.all_runs(PLAN)),
        tables=[
            str(layout.table_path(PLAN.results, table, "tidy.csv"))
            for table in PLAN.config.tables
        ],
        figures=FIGURES,
        code=code("track"),
    output:
        f"{RESULTS}/tracking.json",
    log:
        f"{LOGS}/track.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grown(JOBS.mem_mb),
        runtime=grown(JOBS.minutes.view),
    params:
        spec=views.track_spec(PLAN).to_json(),
    message:
        "Writing {PLAN.results}/mlflow.db and holding every table against it"
    shell:
        f"{LTPA} track --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
        "--records {input.records:q} --tables {input.tables:q} > {log:q} 2>&1"


rule figures:
    input:
        records=views.records(PLAN, views.figure_runs(PLAN)),
        models=views.figure_models(PLAN),
        code=code("figures"),
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
    log:
        f"{LOGS}/figures.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=grown(JOBS.mem_mb),
        runtime=grown(JOBS.minutes.view),
    params:
        spec=views.figures_spec(PLAN).to_json(),
    message:
        "Drawing attention overlays and learning curves"
    shell:
        f"{LTPA} figures --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
        "--records {input.records:q} > {log:q} 2>&1"


rule gallery:
    input:
        files=gallery.gallery_inputs(PLAN),
        code=code("gallery"),
    output:
        index=GALLERY,
        pictures=report(
            gallery_files("png"),
            category="Figures",
            labels={"figure": "Figures of the paper"},
            caption="../report/gallery.rst",
        ),
        print=[*gallery_files("svg"), *gallery_files("pdf")],
    log:
        f"{LOGS}/gallery.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=grown(JOBS.mem_mb),
        runtime=grown(JOBS.minutes.view),
    params:
        spec=gallery.gallery_spec(PLAN).to_json(),
    message:
        "Drawing the figures of images and maps"
    shell:
        f"{LTPA} gallery --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} > {{log:q}} 2>&1"


rule patch_picture:
    input:
        boxes=f"{RESULTS}/patches/{{dataset}}/{{source}}/seed-{{seed}}/{layout.BOXES}",
        manifest=f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
        code=code("patch_pictures"),
    output:
        str(layout.boxes_picture_path(PLAN.results, "{dataset}", "{source}", "{seed}")),
    log:
        f"{LOGS}/patch_picture/{{dataset}}/{{source}}/seed-{{seed}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=grown(JOBS.mem_mb),
        runtime=grown(JOBS.minutes.view),
    params:
        spec=lambda wildcards: PLAN.patch_spec(
            wildcards.dataset, wildcards.source
        ).to_json(),
    message:
        "Drawing the patches of {wildcards.source} on {wildcards.dataset}"
    shell:
        f"{LTPA} patches --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
        "--seed {wildcards.seed} --show 6 > {log:q} 2>&1"


rule step_picture:
    input:
        model=f"{RESULTS}/twostream/{{dataset}}/{{row}}/seed-{{seed}}/{layout.MODEL}",
        files=lambda wildcards: PLAN.twostream.files(
            wildcards.dataset, wildcards.row, [int(wildcards.seed)]
        ),
        manifest=f"{RESULTS}/data/{{dataset}}/{layout.MANIFEST}",
        code=code("step_pictures"),
    output:
        str(layout.steps_picture_path(PLAN.results, "{dataset}", "{row}", "{seed}")),
    log:
        f"{LOGS}/step_picture/{{dataset}}/{{row}}/seed-{{seed}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=grown(JOBS.mem_mb),
        runtime=grown(JOBS.minutes.view),
    params:
        spec=lambda wildcards: PLAN.twostream.training_spec(
            wildcards.dataset, wildcards.row
        ).to_json(),
    message:
        "Drawing the steps of {wildcards.row} on {wildcards.dataset}"
    shell:
        f"{LTPA} twostream show --spec {{params.spec:q}} --results {shlex.quote(RESULTS)} "
        "--seed {wildcards.seed} > {log:q} 2>&1"


rule all_figures:
    input:
        FIGURES,
        GALLERY,
        views.patch_pictures(PLAN),
        views.step_pictures(PLAN),


for name in gallery.gallery_spec(PLAN).figures:

    rule:
        name:
            name
        input:
            str(layout.gallery_path(PLAN.results, name, "png")),


for name in PLAN.tables:

    rule:
        name:
            name
        input:
            [
                str(layout.table_path(PLAN.results, name, suffix))
                for suffix in layout.TABLE_SUFFIXES
            ],
