"""The OASIS network: stem, routed transformer, decoder."""
