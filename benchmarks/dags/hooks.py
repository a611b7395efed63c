"""Two webhooks: one is flooded, the other must not notice."""

from pubsubflow import Dataset
from pubsubflow.webhooks import GitHub, Webhook

SECRET = "benchmark"

for name in ("flooded", "quiet"):
    Webhook(name, dataset=Dataset(f"bench://hooked/{name}"), verify=GitHub(SECRET))
