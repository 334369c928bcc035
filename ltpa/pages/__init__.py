"""The report of a scale: static pages of tables, pictures, checks and provenance, made from what the run wrote."""
