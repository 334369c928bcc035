"""What keeps long work alive: locks, GPU slots, requests to stop, saved states, schedulers."""
