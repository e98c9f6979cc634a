"""A synthetic hospital population: one latent illness model, told twice, as an OMOP 5.4 extract and as FHIR R4."""
