"""From a configuration to jobs: which runs a table needs, the spec of each, and where its files lie."""

from ltpa.plan.plan import Plan, Run

__all__ = ["Plan", "Run"]
