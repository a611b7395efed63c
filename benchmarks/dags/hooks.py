"""Webhooks of the scenario `load`: one is flooded, which must not slow the other."""

from pubsubflow import Dataset
from pubsubflow.webhooks import GitHub, Webhook

SECRET = "benchmark"

for name in ("flooded", "quiet"):
    Webhook(name, dataset=Dataset(f"bench://hooked/{name}"), verify=GitHub(SECRET))
