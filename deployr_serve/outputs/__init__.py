"""Pure renderers: a packet to the payload an EMR takes."""
