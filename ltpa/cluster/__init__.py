"""What the workflow adds to Snakemake's way of running jobs on a SLURM cluster."""
