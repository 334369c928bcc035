"""The MLflow store: a view of the result records, written by one process, never read by a table."""
