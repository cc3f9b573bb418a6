"""Updates from the operator's side: bundles, the server that boxes ask, roll-outs."""
