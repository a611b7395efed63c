"""pubsubflow: datasets in, runs out, in milliseconds."""
