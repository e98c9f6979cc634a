"""An EMR to talk to: FHIR R4, vendor REST, OAuth, a clock and a journal."""
