"""Side-by-side suite: pubsubflow and its peers under the same workloads, on one machine."""
