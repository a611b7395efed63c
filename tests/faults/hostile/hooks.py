"""A webhook for each verifier; a fuzz run must not get anything past one of them."""

import sys
from pathlib import Path

from pubsubflow import Dataset
from pubsubflow.webhooks import Webhook

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.signers import SCHEMES

for name, (verify, *_) in SCHEMES.items():
    Webhook(name, dataset=Dataset(f"hostile://{name}"), verify=verify)
