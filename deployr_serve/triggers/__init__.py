"""Pure codecs: bytes from the EMR to requests, and answers back to bytes."""
