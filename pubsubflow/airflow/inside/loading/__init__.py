"""The parts of loading: the team's modules, what they read, policies, reasons and remedies."""
