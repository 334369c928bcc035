"""What people look at: progress, figures, and the state of machine and runs."""
