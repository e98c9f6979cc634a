"""`deployr trial silent`: the published silent trial, repeated on a synthetic hospital."""
