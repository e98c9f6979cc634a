"""Training, offline: sources, cohorts, features, models, evaluation, bundles."""
