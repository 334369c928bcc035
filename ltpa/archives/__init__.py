"""Archives of datasets: declared, fetched, verified, extracted safely."""
