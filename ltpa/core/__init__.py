"""What everything else stands on: errors, files, hashes, records, provenance, seeds, paths and configuration."""
