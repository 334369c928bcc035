"""The training engine: recipes, schedules, augmentation, checkpoints."""
