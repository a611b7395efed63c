"""Messages between daemons, workers and runners, and the NATS subjects they travel on."""
