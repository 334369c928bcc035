# Views of the records: tables, checks, the MLflow store.


use rule prepare as table with:
    input:
        lambda wildcards: views.table_inputs(PLAN, wildcards.table),
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
        RULES.log("table", "{table}"),
    benchmark:
        RULES.benchmark("table", "{table}")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **RULES.asks("view"),
    params:
        **RULES.params("table", lambda *names: views.table_spec(PLAN, *names), "table"),
        command="table",
    message:
        "Building {wildcards.table}"


use rule table as check with:
    input:
        views.records(PLAN, views.check_runs(PLAN)),
    output:
        json=f"{RESULTS}/checks.json",
        md=f"{RESULTS}/checks.md",
    log:
        RULES.log("check"),
    benchmark:
        RULES.benchmark("check")
    params:
        **RULES.params("check", lambda *names: views.check_spec(PLAN, *names)),
        command="check",
    message:
        "Checking that networks learned and attention attends"


use rule table as track with:
    input:
        views.records(PLAN, views.all_runs(PLAN)),
        [
            str(layout.table_path(PLAN.results, name, "tidy.csv"))
            for name in PLAN.config.tables
        ],
    output:
        f"{RESULTS}/tracking.json",
    log:
        RULES.log("track"),
    benchmark:
        RULES.benchmark("track")
    params:
        **RULES.params("track", lambda *names: views.track_spec(PLAN, *names)),
        command="track",
    message:
        "Writing {PLAN.results}/mlflow.db and comparing every table with it"


use rule table as report with:
    input:
        views.report_inputs(PLAN),
    output:
        index=f"{RESULTS}/report/index.html",
        zip=f"{RESULTS}/report.zip",
    log:
        RULES.log("report"),
    benchmark:
        RULES.benchmark("report")
    params:
        **RULES.params("report", lambda *names: views.report_spec(PLAN, *names)),
        command="report",
    message:
        "Writing the report, {PLAN.results}/report/index.html"
