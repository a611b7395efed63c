"""A webhook for each verifier; a fuzz run must not get anything past one of them."""

from pubsubflow import Dataset
from pubsubflow.webhooks import Webhook
from support.signers import SCHEMES

for name, (verify, *_) in SCHEMES.items():
    Webhook(name, dataset=Dataset(f"hostile://{name}"), verify=verify)
