"""The life of models as records: runs, comparisons, roles and the journal of what was decided."""
