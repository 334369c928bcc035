"""The network families, one file each: its options, what is known of its networks, and where they are built."""
