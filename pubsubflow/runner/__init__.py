"""The runner: processes for user code, forked from a zygote, and the protocol to their parent."""
