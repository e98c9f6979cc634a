"""How a trained model did, measured (`measuring`), and shown to the people who decide about it (`report`)."""
