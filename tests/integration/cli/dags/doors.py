from pubsubflow import Dataset
from pubsubflow.webhooks import GitHub, Secret, Unverified, Webhook

letters = Dataset("s3://lake/letters")

Webhook("letters", dataset=letters, verify=Unverified(), when="body.from != 'nobody'")
Webhook("hub", dataset="s3://lake/pushes", verify=GitHub(Secret("NOBODY_HAS_SET_THIS")))
