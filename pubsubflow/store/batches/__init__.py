"""Batches of the manager: their transaction, statements that write them, remembered rows."""
