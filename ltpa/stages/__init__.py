"""One module per stage: a spec in, result records out; the only writers of result files."""
