"""Routes that sum up: what happens now, grids, neighbourhoods of datasets, the system."""
